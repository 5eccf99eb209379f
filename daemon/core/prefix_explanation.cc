#include "daemon/core/prefix_explanation.h"

#include <algorithm>

#include "index/prefix_scope.h"

namespace kvasir::core {
namespace {

// Chunks that the two have in common; they are the first ones, since each key implies those before.
uint64_t CommonChunks(const PrefixChain& a, const PrefixChain& b) {
  const auto mine = a.keys(), theirs = b.keys();
  uint64_t low = 0, high = std::min(mine.size(), theirs.size());
  while (low < high) {
    const uint64_t middle = (low + high + 1) / 2;
    if (mine[middle - 1] == theirs[middle - 1]) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// Rows from `first` on whose tokens are the same in the snapshot and the query.
uint64_t SameTokensFrom(const Snapshot& snapshot, const PrefixQuery& query, uint64_t first) {
  uint64_t row = first;
  while (row >= snapshot.tokens_base && row < snapshot.rows && row < query.tokens.size() &&
         snapshot.tokens[row - snapshot.tokens_base] == query.tokens[row]) {
    ++row;
  }
  return row - first;
}

struct Nearest {
  const Snapshot* snapshot = nullptr;
  uint64_t rows = 0;   // whose tokens are in common
  uint64_t keyed = 0;  // of those, in chunks that stand for the same
};

std::string NameOf(const Snapshot& snapshot) {
  return FormName(snapshot.retention, snapshot.condensed_from);
}

// What the daemon has made of a form of this retention, directly or in steps.
bool IsMadeOf(const Snapshot& snapshot, const std::string& retention) {
  const std::string& from = snapshot.condensed_from;
  return from == retention || from.ends_with(" condensed from " + retention);
}

void Consider(Nearest& nearest, const Snapshot& snapshot, uint64_t rows, uint64_t keyed) {
  if (nearest.snapshot == nullptr || rows > nearest.rows) nearest = {&snapshot, rows, keyed};
}

}  // namespace

const char* NameOf(MissCause cause) {
  switch (cause) {
    case MissCause::kNone:
      return "hit";
    case MissCause::kNotStored:
      return "not stored";
    case MissCause::kToken:
      return "token";
    case MissCause::kExtra:
      return "extra";
    case MissCause::kSalt:
      return "salt";
    case MissCause::kModel:
      return "model";
    case MissCause::kForm:
      return "form";
    case MissCause::kPrompt:
      return "prompt";
    case MissCause::kBorder:
      return "border";
    case MissCause::kEvicted:
      return "evicted";
    case MissCause::kEngine:
      return "engine";
    case MissCause::kLease:
      return "lease";
    case MissCause::kDegraded:
      return "degraded";
  }
  return "unknown";
}

PrefixExplanation Explain(const PrefixCache& cache, const PrefixAsk& ask, Instant now) {
  const PrefixQuery& query = *ask.query;
  PrefixExplanation why;
  why.row = ask.rows_hit;
  const uint64_t wanted = std::min<uint64_t>(query.rows_max, query.chain->rows());
  if (wanted < ask.rows_hit + kChunkTokens) return why;
  Nearest same, degraded, other_form, other_scope;
  for (const auto& [id, entry] : cache.entries()) {
    const Snapshot& snapshot = *entry.snapshot;
    if (snapshot.chain->scope() != query.chain->scope()) {
      Consider(other_scope, snapshot, SameTokensFrom(snapshot, query, 0), 0);
      continue;
    }
    const uint64_t first = CommonChunks(*snapshot.chain, *query.chain) * kChunkTokens;
    Nearest& nearest = snapshot.form == ask.form            ? same
                       : IsMadeOf(snapshot, *ask.retention) ? degraded
                                                            : other_form;
    Consider(nearest, snapshot,
             first + std::min<uint64_t>(SameTokensFrom(snapshot, query, first), kChunkTokens),
             first);
  }
  const auto say = [&](MissCause cause, const Nearest& nearest) {
    why.cause = cause;
    why.nearest_rows = nearest.snapshot == nullptr ? 0 : nearest.snapshot->rows;
  };
  const uint64_t next = ask.rows_hit / kChunkTokens;
  const auto evicted = cache.EvictedAt(InForm(query.chain->keys()[next], ask.form));
  if (same.keyed > ask.rows_hit) {
    // Known in this form, and still not gone on from.
    const bool reached = same.snapshot->rows <= wanted && same.rows >= same.snapshot->rows;
    say(ask.leased ? MissCause::kLease : reached ? MissCause::kEngine : MissCause::kBorder, same);
  } else if (degraded.keyed > ask.rows_hit) {
    say(MissCause::kDegraded, degraded);
    why.nearest = NameOf(*degraded.snapshot);
  } else if (evicted) {
    say(MissCause::kEvicted, same);
    why.evicted_ago = now - *evicted;
    if (other_form.keyed > ask.rows_hit) why.nearest = NameOf(*other_form.snapshot);
  } else if (other_form.keyed > ask.rows_hit) {
    const Snapshot& other = *other_form.snapshot;
    const bool prompt = other.retention == *ask.retention && other.condensed_from.empty();
    say(prompt ? MissCause::kPrompt : MissCause::kForm, other_form);
    why.nearest = NameOf(other);
  } else if (other_scope.rows > std::max(ask.rows_hit, same.rows) + kChunkTokens - 1) {
    const bool model = other_scope.snapshot->model_fingerprint != ask.model_fingerprint;
    say(model ? MissCause::kModel : MissCause::kSalt, other_scope);
    if (model) why.nearest = other_scope.snapshot->model.name;
  } else if (same.snapshot != nullptr && same.rows >= ask.rows_hit &&
             same.snapshot->rows > same.rows) {
    const uint64_t chunk_end = (next + 1) * kChunkTokens;
    const bool all_same = same.rows >= std::min(chunk_end, same.snapshot->rows);
    say(all_same ? MissCause::kExtra : MissCause::kToken, same);
    why.row = same.rows;
  } else if (same.snapshot != nullptr && same.rows > ask.rows_hit) {
    say(MissCause::kBorder, same);
  } else {
    say(MissCause::kNotStored, same);
  }
  return why;
}

}  // namespace kvasir::core
