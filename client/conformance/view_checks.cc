// Checks that an engine follows its views, for any model: by what must have an influence on the
// logits and what must not, and by policies that keep everything in other places.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/conformance/check.h"

namespace kvasir::conformance {
namespace {

constexpr uint32_t kBatch = 16;
constexpr size_t kRowsLookedAt = 48;

// Answers after the rows [0, end) for each of `ends`, ascending.
absl::StatusOr<std::vector<FeedAnswer>> AnswersAt(Stand& stand, TestedEngine& engine, uint64_t text,
                                                  const std::string& retention,
                                                  std::span<const uint32_t> ids,
                                                  std::span<const size_t> ends) {
  std::vector<FeedAnswer> answers;
  size_t at = 0;
  for (const size_t end : ends) {
    const auto piece = ids.subspan(at, end - at);
    KVASIR_ASSIGN_OR_RETURN(FeedAnswer answer,
                            at == 0
                                ? stand.Run(engine, text, {.retention = retention}, piece, kBatch)
                                : engine.Feed(text, piece, kBatch));
    answers.push_back(std::move(answer));
    at = end;
  }
  KVASIR_RETURN_IF_ERROR(engine.Close(text));
  return answers;
}

// Two texts that are the same but for some ids, and the rows whose logits tell so.
struct Influence {
  std::string retention;
  Ids one, other;
  size_t differ_first = 0, differ_end = 0;  // rows that see the difference
  size_t agree_first = 0, agree_end = 0;    // rows that cannot; agree_first >= differ_end
  std::string what;                         // that differs
};

// The ends of rows from `first` to `end`, both borders among them; of many rows some.
void AddEnds(size_t first, size_t end, std::vector<size_t>& ends) {
  const size_t step = 1 + (end - first) / kRowsLookedAt;
  for (size_t row = first; row < end; row += step) ends.push_back(row + 1);
  if (end > first && ends.back() != end) ends.push_back(end);
}

absl::Status CheckInfluence(Stand& stand, TestedEngine& engine, const Influence& influence) {
  std::vector<size_t> ends;
  AddEnds(influence.differ_first, influence.differ_end, ends);
  AddEnds(influence.agree_first, influence.agree_end, ends);
  std::vector<std::vector<FeedAnswer>> runs;
  for (const Ids* ids : {&influence.one, &influence.one, &influence.other}) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<FeedAnswer> run,
                            AnswersAt(stand, engine, 1, influence.retention, *ids, ends));
    runs.push_back(std::move(run));
  }
  for (size_t i = 0; i < ends.size(); ++i) {
    const size_t row = ends[i] - 1;
    // Most engines give the same bits again; what one does not is no influence.
    const double noise = 2 * Difference(runs[0][i], runs[1][i]);
    const double difference = Difference(runs[0][i], runs[2][i]);
    if (row < influence.differ_end && difference <= noise) {
      return Internal("row {} is not influenced by {}, which its view shows: retention={}", row,
                      influence.what, influence.retention);
    }
    if (row >= influence.agree_first && difference > noise) {
      return Internal(
          "row {} is influenced by {}, which no layer's view shows: retention={} difference={:.2g}",
          row, influence.what, influence.retention, difference);
    }
  }
  return absl::OkStatus();
}

// Texts that differ in all rows from `first` to `end`, of `rows` rows, without the ids `without`.
Influence Differing(const Stand& stand, size_t first, size_t end, size_t rows, const Ids& without) {
  Influence influence;
  influence.one = stand.MakeIds(rows, 11, without);
  influence.other = influence.one;
  const Ids others = stand.MakeIds(rows, 12, without);
  for (size_t row = first; row < end; ++row) {
    size_t other = row;
    while (others[other % rows] == influence.one[row]) ++other;
    influence.other[row] = others[other % rows];
  }
  influence.what = end == first + 1 ? fmt::format("the id of row {}", first)
                                    : fmt::format("the ids of rows {} to {}", first, end - 1);
  return influence;
}

std::string JoinedList(const std::vector<size_t>& values) {
  std::string text;
  for (const size_t value : values) text += (text.empty() ? "" : "/") + std::to_string(value);
  return text;
}

// `retention`, which keeps every row, gives the logits of `full` along a text. The largest
// difference.
absl::StatusOr<double> CompareWithFull(Stand& stand, TestedEngine& engine,
                                       const std::string& retention) {
  const size_t slots = stand.facts().slots_per_block;
  const Ids ids = stand.MakeIds(4 * slots + 5, 13);
  std::vector<size_t> ends;
  // Row by row over a block in the middle, and at uneven places else.
  for (size_t end = 7; end < ids.size();
       end += end >= 2 * slots && end < 3 * slots ? 1 : slots / 3) {
    ends.push_back(end);
  }
  KVASIR_ASSIGN_OR_RETURN(const std::vector<FeedAnswer> wanted,
                          AnswersAt(stand, engine, 1, "full", ids, ends));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<FeedAnswer> got,
                          AnswersAt(stand, engine, 2, retention, ids, ends));
  double largest = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    KVASIR_RETURN_IF_ERROR(
        stand.Same(wanted[i], got[i], retention + ", which keeps every row, is not as full"));
    largest = std::max(largest, Difference(wanted[i], got[i]));
  }
  return largest;
}

}  // namespace

absl::StatusOr<std::string> CheckKept(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  KVASIR_ASSIGN_OR_RETURN(
      const double difference,
      CompareWithFull(stand, *engine, "fixllm:init_cache_size=2,local_size=3,delta=1"));
  return fmt::format("all rows but 3 kept or sticky: up to {:.2g}", difference);
}

absl::StatusOr<std::string> CheckCovering(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const std::string retention = "streamingllm:start_size=4,recent_size=100000,positions=";
  KVASIR_ASSIGN_OR_RETURN(double difference,
                          CompareWithFull(stand, *engine, retention + "original"));
  if (stand.Offers("in_cache")) {
    KVASIR_ASSIGN_OR_RETURN(const double in_cache,
                            CompareWithFull(stand, *engine, retention + "in_cache"));
    difference = std::max(difference, in_cache);
  }
  return fmt::format("nothing dropped: up to {:.2g}", difference);
}

absl::StatusOr<std::string> CheckUnrotated(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  if (!stand.Offers("unrotated")) return NotOffered("unrotated");
  // Recent rows, then kept ones as well.
  double largest = 0;
  for (const char* retention :
       {"full:positions=unrotated",
        "fixllm:init_cache_size=2,local_size=3,delta=1,positions=unrotated"}) {
    KVASIR_ASSIGN_OR_RETURN(const double difference, CompareWithFull(stand, *engine, retention));
    largest = std::max(largest, difference);
  }
  return fmt::format("recent and kept rows: up to {:.2g}", largest);
}

absl::StatusOr<std::string> CheckWindow(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const size_t slots = stand.facts().slots_per_block, layers = stand.facts().layers;
  constexpr size_t kSinks = 2, kWindow = 4;
  // What a row's logits depend on beside the sinks: a window in each layer, one behind the other.
  const size_t field = layers * (kWindow - 1);
  const size_t end = slots + 5;
  const std::string retention =
      fmt::format("streamingllm:start_size={},recent_size={},positions=original", kSinks, kWindow);
  const size_t rows = end + field + slots + 2;
  Influence behind = Differing(stand, kSinks, end, rows, {});
  behind.retention = retention;
  behind.differ_first = end;
  behind.differ_end = end + kWindow - 1;
  behind.agree_first = end + field;
  behind.agree_end = rows;  // every place of a window in a block
  KVASIR_RETURN_IF_ERROR(CheckInfluence(stand, *engine, behind));
  Influence sink = Differing(stand, 0, 1, rows, {});
  sink.retention = retention;
  sink.differ_first = rows - slots - 2;
  sink.differ_end = sink.agree_first = sink.agree_end = rows;
  KVASIR_RETURN_IF_ERROR(CheckInfluence(stand, *engine, sink));
  // A window that slides cuts steps where what is visible changes.
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer single,
                          stand.Run(*engine, 1, {.retention = retention}, sink.one, 1));
  for (const uint32_t batch : {7U, 64U}) {
    KVASIR_ASSIGN_OR_RETURN(const FeedAnswer many,
                            stand.Run(*engine, batch, {.retention = retention}, sink.one, batch));
    KVASIR_RETURN_IF_ERROR(
        stand.Same(single, many, fmt::format("{} rows a step with {}", batch, retention)));
  }
  return fmt::format("a window of {} in {} layers reaches {} rows back", kWindow, layers, field);
}

absl::StatusOr<std::string> CheckSticky(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const size_t slots = stand.facts().slots_per_block, layers = stand.facts().layers;
  constexpr size_t kWindow = 4;
  const Ids separators = stand.MakeIds(2, 14);
  const uint32_t first = separators[0];
  const uint32_t second =
      separators[1] != first ? separators[1] : (first + 1) % stand.facts().vocabulary;
  const std::string retention =
      fmt::format("sepllm:form=static,init_cache_size=2,local_size={},separators={}/{}", kWindow,
                  first, second);
  const size_t row = slots + 2, rows = row + 2 * slots + layers * kWindow;
  // A separator: sticky while its block is recent, kept later, and seen all the time.
  Influence separator = Differing(stand, row, row + 1, rows, {first, second});
  separator.retention = retention;
  separator.one[row] = first;
  separator.other[row] = second;
  separator.what = fmt::format("the separator of row {}", row);
  separator.differ_first = row;
  separator.differ_end = separator.agree_first = separator.agree_end = rows;
  KVASIR_RETURN_IF_ERROR(CheckInfluence(stand, *engine, separator));
  // Any other id at its place is gone with the window.
  Influence plain = Differing(stand, row, row + 1, rows, {first, second});
  plain.retention = retention;
  plain.differ_first = row;
  plain.differ_end = row + kWindow;
  plain.agree_first = row + layers * (kWindow - 1) + 1;
  plain.agree_end = rows;
  KVASIR_RETURN_IF_ERROR(CheckInfluence(stand, *engine, plain));
  return fmt::format("a separator seen over {} rows, another id over {}", rows - row, kWindow);
}

absl::StatusOr<std::string> CheckLayers(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  const size_t slots = stand.facts().slots_per_block, layers = stand.facts().layers;
  if (layers < 2) return NotOffered("a second layer");
  const size_t wide = slots + layers + 4, narrow = 2, end = slots + 5;
  const size_t field = wide - 1 + (layers - 1) * (narrow - 1);
  for (const size_t place : {size_t{0}, layers - 1}) {
    std::vector<size_t> windows(layers, narrow);
    windows[place] = wide;
    const size_t rows = end + field + slots / 2;
    Influence influence = Differing(stand, 1, end, rows, {});
    influence.retention = fmt::format("streamingllm:start_size=1,recent_size={},positions=original",
                                      JoinedList(windows));
    influence.differ_first = end + wide - 4;
    influence.differ_end = end + wide - 1;
    influence.agree_first = end + field;
    influence.agree_end = rows;
    KVASIR_RETURN_IF_ERROR(CheckInfluence(stand, *engine, influence));
  }
  return fmt::format("windows of {} in the first or last layer, of {} in the others", wide, narrow);
}

absl::StatusOr<std::string> CheckPositions(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  if (!stand.Offers("in_cache")) return NotOffered("in_cache");
  const size_t slots = stand.facts().slots_per_block, layers = stand.facts().layers;
  constexpr size_t kSinks = 4, kWindow = 4;
  // Two texts that begin and end alike, with more in between in one of them. Counted in the cache
  // their last rows stand at the same places, counted in the text they do not.
  const Ids sinks = stand.MakeIds(kSinks, 15);
  const Ids tail = stand.MakeIds(layers * (kWindow - 1) + slots + 3, 16);
  const auto text = [&](size_t between) {
    Ids ids = sinks;
    const Ids filler = stand.MakeIds(between, 17);
    ids.insert(ids.end(), filler.begin(), filler.end());
    ids.insert(ids.end(), tail.begin(), tail.end());
    return ids;
  };
  const Ids shorter = text(slots + 1), longer = text(3 * slots + 6);
  std::vector<double> differences;
  for (const char* positions : {"in_cache", "original"}) {
    const std::string retention = fmt::format(
        "streamingllm:start_size={},recent_size={},positions={}", kSinks, kWindow, positions);
    std::vector<FeedAnswer> last;
    for (const Ids* ids : {&shorter, &longer}) {
      const std::vector<size_t> ends{ids->size() - 1, ids->size()};
      KVASIR_ASSIGN_OR_RETURN(const std::vector<FeedAnswer> answers,
                              AnswersAt(stand, *engine, 1, retention, *ids, ends));
      last.push_back(answers.back());
    }
    differences.push_back(Difference(last[0], last[1]));
  }
  const double in_cache = differences[0], original = differences[1];
  if (in_cache > stand.settings().tolerance) {
    return Internal(
        "with positions in the cache the logits depend on where in the text a row stands, so "
        "queries or keys are rotated elsewhere than the views say: difference={:.2g}, with "
        "positions of the text {:.2g}",
        in_cache, original);
  }
  if (original <= 4 * in_cache) {  // no more than rounding
    return Internal(
        "with positions of the text the logits do not depend on how far back the first rows are: "
        "difference={:.2g}, with positions in the cache {:.2g}",
        original, in_cache);
  }
  return fmt::format("moved by {} rows: {:.2g} in the cache, {:.2g} in the text",
                     longer.size() - shorter.size(), in_cache, original);
}

absl::StatusOr<std::string> CheckMass(Stand& stand) {
  KVASIR_RETURN_IF_ERROR(stand.StartDaemon());
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<TestedEngine> engine, stand.NewEngine());
  if (!stand.Offers("mass")) return NotOffered("mass");
  if (stand.OnDevice()) return NotOnADevice("decisions by attention mass");
  const std::string retention = "h2o:hh_size=12,recent_size=12,evict_interval=24,decay=0.7";
  const Ids ids = stand.MakeIds(2 * size_t{stand.facts().slots_per_block} + 30, 18);
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer one,
                          stand.Run(*engine, 1, {.retention = retention}, ids, 1));
  KVASIR_ASSIGN_OR_RETURN(const FeedAnswer many,
                          stand.Run(*engine, 2, {.retention = retention}, ids, 7));
  KVASIR_RETURN_IF_ERROR(stand.Same(one, many, "7 rows a step with " + retention));
  return fmt::format("{} rows, up to {:.2g}", ids.size(), Difference(one, many));
}

}  // namespace kvasir::conformance
