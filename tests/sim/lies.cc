// Engines that lie. One that breaks the protocol is ended for it, and nothing changes for others.
#include <cstring>
#include <limits>

#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

using Code = absl::StatusCode;

}  // namespace

std::vector<World::OfOthers> World::FiguresOfOthers(uint32_t tenant) const {
  std::vector<OfOthers> figures;
  const std::vector<core::TenantReport> reports = core_->TenantReports();
  for (uint32_t i = 0; i < reports.size(); ++i) {
    const core::TenantReport& r = reports[i];
    if (i == tenant) continue;
    OfOthers of{0, 0, r.counters.violations, 0, 0, r.sessions, r.sequences};
    // What the library has given away, and given up since, goes with its last reader.
    if (i != library()) {
      of.held = r.held_bytes;
      of.charged = r.charged_bytes;
      of.snapshots = r.snapshots;
      of.prefixes = r.prefixes;
    }
    figures.push_back(of);
  }
  return figures;
}

void World::Lie() {
  Engine* const engine = AnyEngine();
  Stream* const stream = AnyStream(engine);
  if (stream == nullptr) return;
  const std::vector<OfOthers> before = FiguresOfOthers(engine->tenant());
  switch (random_.Below(4)) {
    case 0:
      LieOnDesk(*engine, *stream);
      break;
    case 1:
    case 2:
      LieInCalls(*engine, *stream);
      break;
    default:
      Spoil(*engine, *stream);
  }
  if (FiguresOfOthers(engine->tenant()) != before) {
    findings_.Add("a lie has changed what others have: tenant={}", names_[engine->tenant()]);
  }
}

// What the desk says is beyond what is possible.
void World::LieOnDesk(Engine& engine, Stream& stream) {
  shm::SeqBoard& board = engine.board(stream.slot);
  engine.WriteDesk(stream);
  const uint64_t consumed = board.consumed;
  bool caught = true;
  switch (random_.Below(6)) {
    case 0:
      engine.WriteDesk(stream, board.granted.load() + 1 + random_.Below(1000), stream.adopted);
      break;
    case 1:
      if (consumed == 0) return;
      engine.WriteDesk(stream, consumed - 1, stream.adopted);
      break;
    case 2:
      engine.WriteDesk(stream, stream.rows(), stream.adopted + 2 + random_.Below(1000));
      break;
    case 3: {  // a token that is none, in a row that is new
      if (engine.Writable(stream, /*late=*/true) == 0) return;
      engine.WriteRow(stream, kVocabulary + random_.Below32(1000), 0.5F);
      engine.WriteDesk(stream);
      break;
    }
    case 4:
      engine.WriteDesk(stream, random_.Next() | uint64_t{1} << 40, random_.Next());
      break;
    default:  // of another life of the slot: it says nothing
      engine.desk(stream.slot).rows.store(random_.Next());
      engine.desk(stream.slot).uid.store(stream.uid + 1);
      caught = false;
  }
  if (findings_.any()) return;
  engine.lied = caught;
  const absl::Status status =
      core_->Sync(engine.session(), {stream.slot, stream.uid, stream.rows(), std::nullopt}).status;
  if (caught == engine.open() || (caught && status.code() != Code::kPermissionDenied)) {
    findings_.Add("a forged desk is not judged: caught={} open={} {}", caught, engine.open(),
                  MessageOf(status));
  }
  if (engine.open()) engine.WriteDesk(stream);
  Count(caught ? "ended for a forged desk" : "stale desk ignored");
}

// Ids, slots and numbers in calls that are not the engine's, or none.
void World::LieInCalls(Engine& engine, Stream& stream) {
  core::Session& session = engine.session();
  engine.WriteDesk(stream);
  const auto expect = [&](const absl::Status& status, Code code) {
    if (status.code() != code || !engine.open()) {
      findings_.Add("a forged call is not refused: expected={} got={} open={} {}",
                    static_cast<int>(code), static_cast<int>(status.code()), engine.open(),
                    MessageOf(status));
    }
  };
  bool asked = false;
  switch (random_.Below(10)) {
    case 0:
      expect(core_->Sync(session, {stream.slot, stream.uid + 1, 1, std::nullopt}).status,
             Code::kAborted);
      break;
    case 1:
      expect(core_->Sync(session, {random_.Below32(1000) + 4, stream.uid, 1, std::nullopt}).status,
             Code::kNotFound);
      break;
    case 2:
      if (stream.spoilt) break;
      expect(core_->Sync(session, {stream.slot, stream.uid, ~uint64_t{0}, std::nullopt}).status,
             Code::kInvalidArgument);
      break;
    case 3: {
      const core::TruncateAnswer answer =
          core_->Truncate(session, stream.slot, stream.uid, stream.rows() + 1 + random_.Below(9));
      if (answer.ready) expect(answer.status, Code::kOutOfRange);
      break;
    }
    case 4:
      expect(core_->OpenSequence(session, {99, "full", 0, "", 0, true, {}}).status(),
             Code::kNotFound);
      break;
    case 5: {
      core::ModelDescription model = ModelOf(0);
      model.layers.clear();
      const absl::StatusCode code = core_->RegisterModel(session, model).status().code();
      if (code != Code::kInvalidArgument && code != Code::kResourceExhausted) {
        findings_.Add("a model without layers is registered");
      }
      break;
    }
    case 6: {  // the snapshot of another tenant
      for (const Saved& saved : saved_) {
        if (saved.tenant == engine.tenant() || engine.model_ids[saved.model] == 0) continue;
        core::OpenRequest request{engine.model_ids[saved.model], "", 0, "", 0, true, saved.id};
        const absl::StatusCode code = core_->OpenSequence(session, request).status().code();
        if (code != Code::kNotFound && code != Code::kResourceExhausted) {
          findings_.Add("another tenant's snapshot is opened: tenant={}", names_[engine.tenant()]);
        }
        break;
      }
      break;
    }
    case 7:
      expect(core_->CloseSequence(session, stream.slot, stream.uid + 7).status(), Code::kAborted);
      break;
    case 8: {
      const core::RetrieveAnswer answer =
          core_->Retrieve(session, stream.slot, stream.uid, random_.Below32(5), 3, &asked);
      if (answer.ready && answer.status.ok()) findings_.Add("blocks of nothing are retrieved");
      break;
    }
    default:  // what the threads that read its ring have seen
      engine.lied = true;
      core_->EndForViolation(engine.session_id(), InvalidArgument("a forged entry"));
      if (engine.open()) findings_.Add("a session outlives its violation");
      Count("ended for a forged entry");
      return;
  }
  Count("forged calls");
}

// Nonsense in the memory that is its own: rows, and what it reports of them.
void World::Spoil(Engine& engine, Stream& stream) {
  if (stream.rows() == 0) return;
  stream.spoilt = true;  // so it is neither saved nor published: who does has its own rows wrong
  stream.asked = false;
  const shm::LaneSpan& span = *reinterpret_cast<const shm::LaneSpan*>(
      reinterpret_cast<const std::byte*>(&engine.header()) +
      engine.board(stream.slot).v[stream.adopted & 1].lanes_off);
  if (stream.rows() - 1 < span.recent_first) return;
  std::byte* const base = engine.RecentRow(stream, stream.rows() - 1, 0);
  if (base == nullptr) return;
  const shm::GroupGeometry& recent = stream.lanes[0].recent;
  const uint64_t at = recent.k_off[0] + (stream.rows() - 1) % kSlots * kRowBytes;
  std::memset(base + at, 0x7E, kRowBytes);  // no number
  Engine::FillReports(stream, random_.OneIn(2) ? std::numeric_limits<float>::quiet_NaN()
                                               : -std::numeric_limits<float>::infinity());
  Count("spoilt");
}

}  // namespace kvasir::sim
