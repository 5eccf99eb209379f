// What is checked after each step of a simulated world.
#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "tests/sim/world.h"

namespace kvasir::sim {
namespace {

// Steps between two looks at everything at once.
constexpr uint64_t kGroupsEvery = 16;

}  // namespace

void World::Check() {
  CheckEngines();
  if (findings_.any()) return;
  CheckFigures();
  if (findings_.any()) return;
  const absl::Status conserved = core_->CheckConservation();
  if (!conserved.ok()) return findings_.Add("{}", MessageOf(conserved));
  if (Engine* const engine = random_.OneIn(4) ? AnyEngine() : nullptr) {
    if (Stream* const stream = AnyStream(engine)) engine->CheckView(*stream);
  }
  if (steps_ % kGroupsEvery == 0 && !findings_.any()) CheckGroups();
}

// Sessions and sequences end for a reason, and where they have not ended they are there.
void World::CheckEngines() {
  for (size_t i = 0; i < engines_.size();) {
    Engine& engine = *engines_[i];
    if (!engine.open()) {
      const auto reason = static_cast<shm::EndReason>(engine.header().end_reason.load());
      if (reason == shm::EndReason::kMemoryTakenBack) {
        Count("sessions taken back");
      } else if (reason != shm::EndReason::kViolation || !engine.lied) {
        return findings_.Add("an honest session was ended: session={} tenant={} reason={}",
                             engine.session_id(), names_[engine.tenant()],
                             static_cast<int>(reason));
      }
      Leave(i);
      continue;
    }
    ++i;
    for (size_t s = 0; s < engine.streams.size();) {
      const Stream& stream = *engine.streams[s];
      const bool ended = engine.IsTakenBack(stream);
      const bool says_so = engine.board(stream.slot).state.load() ==
                           static_cast<uint32_t>(shm::BoardState::kTakenBack);
      if (ended != says_so) {
        return findings_.Add("a sequence is neither open nor taken back: tenant={} sequence={}",
                             names_[engine.tenant()], stream.id);
      }
      if (!ended) {
        ++s;
        continue;
      }
      Count("sequences taken back");
      engine.streams.erase(engine.streams.begin() + static_cast<ptrdiff_t>(s));
    }
  }
}

void World::CheckFigures() {
  const std::vector<core::TenantReport> reports = core_->TenantReports();
  uint64_t of_pool = 0, grew = 0;
  const core::TenantReport* grown = nullptr;
  for (size_t i = 0; i < reports.size(); ++i) {
    const core::TenantReport& r = reports[i];
    Before& before = before_[i];
    of_pool += r.charged_bytes - r.taken_back_bytes;
    if (r.held_bytes > r.charged_bytes || r.taken_back_bytes > r.charged_bytes) {
      return findings_.Add("a tenant holds more than it is charged: tenant={} held={} charged={}",
                           r.name, r.held_bytes, r.charged_bytes);
    }
    if (r.charged_bytes > before.charged && r.charged_bytes > r.limit_bytes) {
      return findings_.Add("a tenant was given more than its limit: tenant={} charged={} limit={}",
                           r.name, r.charged_bytes, r.limit_bytes);
    }
    if (books_->RecentBytesOf(static_cast<uint32_t>(i)) > r.charged_bytes) {
      return findings_.Add("engines have more than is charged: tenant={} sent={} charged={}",
                           r.name, books_->RecentBytesOf(static_cast<uint32_t>(i)),
                           r.charged_bytes);
    }
    if (r.charged_bytes - r.taken_back_bytes > before.charged - before.taken_back) {
      ++grew;
      grown = &r;
    }
    uint32_t sessions = 0, sequences = 0;
    bool exact = true;  // those of ended sessions are still there while a job is out
    for (const auto& engine : engines_) {
      if (engine->tenant() != i) continue;
      ++sessions;
      sequences += static_cast<uint32_t>(engine->streams.size());
    }
    for (const auto& engine : leaving_) {
      if (engine->tenant() != i) continue;
      ++sessions;
      exact = false;
    }
    if (r.sessions != sessions || r.sequences < sequences) {
      return findings_.Add("sessions do not add up: tenant={} sessions={},{} sequences={},{}",
                           r.name, r.sessions, sessions, r.sequences, sequences);
    }
    // Those that nobody waits for any more go with their jobs.
    std::erase_if(given_up_,
                  [&](const auto& one) { return one.first == i && r.sequences == sequences; });
    exact = exact && std::none_of(given_up_.begin(), given_up_.end(),
                                  [&](const auto& one) { return one.first == i; });
    if (exact && r.sequences != sequences) {
      return findings_.Add("a sequence is there that nobody has: tenant={} sequences={} open={}",
                           r.name, r.sequences, sequences);
    }
    before = {r.charged_bytes, r.taken_back_bytes, r.limit_bytes, r.counters.violations};
    digest_ = Mixed(digest_ ^ r.held_bytes ^ r.charged_bytes << 24 ^ r.rows_seen << 48);
  }
  const HostPoolCounts pool = pool_->counts();
  if (of_pool != pool.charged_bytes) {
    return findings_.Add("bytes of tenants and of the pool differ: tenants={} pool={}", of_pool,
                         pool.charged_bytes);
  }
  if (pool.charged_bytes + pool.ready_bytes + pool.idle_bytes !=
      pool.pool_bytes + pool.over_bytes) {
    return findings_.Add("bytes of the pool do not add up: pool={} charged={} ready={} idle={}",
                         pool.pool_bytes, pool.charged_bytes, pool.ready_bytes, pool.idle_bytes);
  }
  // What is left of the pool is lent to nobody.
  if (grew == 1 && grown->charged_bytes - grown->taken_back_bytes > grown->own_bytes &&
      pool.idle_bytes + pool.ready_bytes < pool.pool_bytes / core::Lending::kSpareParts) {
    findings_.Add("the last of the pool was lent: tenant={} charged={} own={} idle={}", grown->name,
                  grown->charged_bytes, grown->own_bytes, pool.idle_bytes);
  }
}

// No two boards name one group of recent rows, and groups do not overlap.
void World::CheckGroups() {
  named_.clear();
  for (const auto& engine : engines_) {
    for (const auto& stream : engine->streams) {
      if (!engine->Opening(*stream)) engine->AddNamed(*stream, &named_);
    }
  }
  std::sort(named_.begin(), named_.end(), [](const auto& a, const auto& b) {
    return std::tie(a.extent, a.offset, a.bytes) < std::tie(b.extent, b.offset, b.bytes);
  });
  for (size_t i = 1; i < named_.size(); ++i) {
    const Engine::NamedGroup &a = named_[i - 1], &b = named_[i];
    if (a.extent != b.extent || a.offset + a.bytes <= b.offset) continue;
    const bool shared = !a.recent && !b.recent && a.offset == b.offset && a.bytes == b.bytes;
    if (shared) continue;
    return findings_.Add("one group is named twice: extent={} offset={},{} recent={}", a.extent,
                         a.offset, b.offset, a.recent);
  }
}

}  // namespace kvasir::sim
