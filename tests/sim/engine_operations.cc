// What simulated engines do.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

using Code = absl::StatusCode;

constexpr uint64_t kRowsMax = 220;
constexpr size_t kSavedMax = 48, kPublishedMax = 24;

template <typename Id>
Id IdOf(uint64_t number) {
  Id id;
  std::memcpy(id.bytes.data(), &number, sizeof(number));
  return id;
}

template <typename T>
void EraseAt(std::vector<T>& values, size_t at) {
  values.erase(values.begin() + static_cast<ptrdiff_t>(at));
}

}  // namespace

void World::Connect() {
  if (engines_.size() >= 5 && !random_.OneIn(16)) return;
  Engine::Place place{random_.Below32(library() + 1), library(), random_.OneIn(24)};
  auto engine = std::make_unique<Engine>(*core_, limits_, place, ++ids_made_, *books_, findings_);
  if (engine->session_id() == 0) return Count("session refused");
  engine->holds = !place.overrides && random_.OneIn(4);
  for (uint32_t model = 0; model < kModels; ++model) {
    if (random_.OneIn(4)) continue;
    Expect(engine->Register(model), {Code::kResourceExhausted, Code::kDeadlineExceeded});
  }
  engines_.push_back(std::move(engine));
}

void World::Die() {
  if (!engines_.empty()) Leave(random_.Below(engines_.size()));
}

void World::LetGo() {
  if (Engine* const engine = AnyEngine(); engine != nullptr && random_.OneIn(2)) {
    engine->held.resize(engine->held.size() / 2);
  }
  hoard_.resize(hoard_.size() - std::min<size_t>(hoard_.size(), 1 + random_.Below(6)));
}

void World::EndStream(Engine& engine, const Stream& stream) {
  std::erase_if(engine.streams, [&](const auto& one) { return one.get() == &stream; });
}

void World::Close() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine, /*opened=*/false);
  if (stream == nullptr) return;
  if (stream->rows() < 100 && !random_.OneIn(3)) return;
  if (engine->Opening(*stream) && random_.OneIn(2)) {
    core_->GiveUpOpening(stream->id);
    Count("opening given up");
    given_up_.emplace_back(engine->tenant(), stream->id);
    return EndStream(*engine, *stream);
  }
  const absl::StatusOr<bool> closed =
      core_->CloseSequence(engine->session(), stream->slot, stream->uid);
  if (!closed.ok()) return Expect(closed.status(), {});
  if (!*closed) return Count("close waits");
  EndStream(*engine, *stream);
  Count("closed");
}

void World::Compute() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine);
  if (stream == nullptr) return;
  const uint64_t wanted = 1 + random_.Below(12);
  const bool late = random_.OneIn(4);
  uint64_t wrote = 0;
  while (wrote < wanted && stream->rows() < kRowsMax && engine->Writable(*stream, late) > 0) {
    const uint64_t row = stream->rows();
    const uint32_t token = row < stream->script.size() ? stream->script[row] : random_.Below32(8);
    engine->WriteRow(*stream, token, static_cast<float>(1 + random_.Below(1000)) * 1e-3F);
    if (findings_.any()) return;
    if (++wrote < wanted && random_.OneIn(8)) engine->CheckView(*stream);
  }
  if (wrote > 0) engine->CheckView(*stream);
  counts_["rows"] += wrote;
  Sync(*engine, *stream, 1);
}

void World::Ask() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine);
  if (stream != nullptr) Sync(*engine, *stream, random_.OneIn(4) ? random_.Below(100) : 1);
}

void World::Sync(Engine& engine, Stream& stream, uint64_t more) {
  engine.WriteDesk(stream);
  const core::SyncNeed need{stream.slot, stream.uid, stream.rows() + more, stream.rows()};
  if (TriesShare() && Verbs().Sync(engine.session(), need)) return Count("syncs in a share");
  const core::SyncAnswer answer = core_->Sync(engine.session(), need);
  if (answer.status.code() == Code::kResourceExhausted) Count("rows refused");
  if (stream.spoilt && answer.status.code() == Code::kInvalidArgument) return;
  Expect(answer.status, {Code::kResourceExhausted, Code::kDeadlineExceeded});
}

void World::Truncate() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine);
  if (stream == nullptr || stream->rows() == 0) return;
  engine->WriteDesk(*stream);
  const uint64_t rows = stream->rows() - random_.Below(std::min<uint64_t>(stream->rows() + 1, 24));
  std::optional<core::TruncateAnswer> in_share;
  if (TriesShare()) {
    in_share = Verbs().Truncate(engine->session(), stream->slot, stream->uid, rows);
  }
  if (in_share) Count("truncations in a share");
  const core::TruncateAnswer answer =
      in_share ? *in_share : core_->Truncate(engine->session(), stream->slot, stream->uid, rows);
  if (!answer.ready) return;
  if (answer.status.ok() != (rows >= answer.rollback_floor)) {
    return findings_.Add("a truncation is not judged by its floor: rows={} floor={} {}", rows,
                         answer.rollback_floor, MessageOf(answer.status));
  }
  if (!answer.status.ok()) return Count("truncation refused");
  if (rows < stream->rows()) Count("truncated");
  stream->text.Cut(rows);
  stream->uid = answer.uid;
  stream->asked = false;  // a client waits for its save
  if (random_.OneIn(2)) stream->script.resize(std::min<size_t>(stream->script.size(), rows));
  (void)engine->Writable(*stream, /*late=*/false);  // takes the newest table that is due
  engine->WriteDesk(*stream);
}

void World::Save() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine);
  if (stream == nullptr || stream->spoilt) return;
  if (!stream->asked) stream->publishing = false;
  SaveOrPublish(*engine, *stream);
}

void World::Publish() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr) return;
  for (const std::unique_ptr<Stream>& stream : engine->streams) {
    if (!stream->shares || stream->spoilt || stream->rows() < kSlots || random_.OneIn(2)) continue;
    if (engine->Opening(*stream)) continue;
    if (!stream->asked) stream->publishing = true;
    return SaveOrPublish(*engine, *stream);
  }
}

void World::SaveOrPublish(Engine& engine, Stream& stream) {
  engine.WriteDesk(stream);
  core::SaveAnswer answer;
  if (stream.publishing) {
    answer = core_->PublishPrefix(engine.session(), stream.slot, stream.uid, &stream.asked);
  } else {
    if (!stream.asked) stream.saving = IdOf<core::SnapshotId>(++ids_made_);
    answer = core_->SaveSequence(engine.session(), stream.slot, stream.uid, stream.saving, now_,
                                 &stream.asked);
  }
  if (!answer.status.ok() || answer.ready) stream.asked = false;
  if (!answer.status.ok()) {
    Count(stream.publishing ? "publishing refused" : "save refused");
    const bool may_not = answer.status.code() == Code::kFailedPrecondition &&
                         (stream.publishing || !stream.retention->can_be_saved);
    if (!may_not) Expect(answer.status, {Code::kResourceExhausted, Code::kDeadlineExceeded});
    return;
  }
  if (!answer.ready) return;
  if (answer.rows > stream.rows()) {
    return findings_.Add("more rows are saved than there are: rows={} saved={}", stream.rows(),
                         answer.rows);
  }
  Count(stream.publishing ? "published" : "saved");
  if (stream.publishing) {
    std::vector<uint32_t> script = stream.text.tokens;
    script.resize(answer.rows);
    published_.push_back({engine.tenant(), stream.model, stream.retention, std::move(script)});
    if (published_.size() > kPublishedMax) EraseAt(published_, 0);
    return;
  }
  Saved saved{stream.saving, engine.tenant(), stream.model, stream.retention, stream.text};
  saved.text.Cut(answer.rows);
  saved_.push_back(std::move(saved));
  if (saved_.size() > kSavedMax) EraseAt(saved_, 0);
}

void World::Drop() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr || saved_.empty()) return;
  const size_t at = random_.Below(saved_.size());
  const absl::Status dropped = core_->DropSnapshot(engine->session(), saved_[at].id);
  if (saved_[at].tenant == engine->tenant()) {
    EraseAt(saved_, at);
  } else if (dropped.code() != Code::kNotFound) {
    findings_.Add("another tenant's snapshot was dropped: tenant={}", names_[engine->tenant()]);
  }
}

void World::Refuse() {
  for (const auto& engine : engines_) engine->refuses_extents = false;
  Engine* const engine = AnyEngine();
  if (engine != nullptr && random_.OneIn(3)) engine->refuses_extents = true;
}

// Whom memory is wanted back from may give up a sequence.
void World::Hear() {
  Engine* const engine = AnyEngine();
  if (engine == nullptr || engine->header().wanted_back.load() == 0) return;
  Count("heard that memory is wanted back");
  Stream* const stream = AnyStream(engine, /*opened=*/false);
  if (stream == nullptr) return;
  const absl::StatusOr<bool> closed =
      core_->CloseSequence(engine->session(), stream->slot, stream->uid);
  if (!closed.ok()) return Expect(closed.status(), {});
  if (*closed) EndStream(*engine, *stream);
}

void World::LookAround() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine, /*opened=*/false);
  if (stream == nullptr) return;
  const std::string& own = names_[engine->tenant()];
  const uint64_t first_row = random_.Below(40);
  const auto seen = core_->Inspect(&own, stream->id, 0, first_row, random_.Below32(60));
  Expect(seen.status(), {});
  const std::string& other = names_[(engine->tenant() + 1) % names_.size()];
  if (core_->Inspect(&other, stream->id, 0, 0, 10).status().code() != Code::kNotFound) {
    findings_.Add("a tenant may inspect another's sequence: tenant={} of={}", other, own);
  }
}

}  // namespace kvasir::sim
