// Goal: engines of several tenants and the workers do their work under their tenants' shares at
// once, beside everything that has the whole core, and the books are right after it. Method:
// threads that do as they like for a while, on the real lock, the real workers and engines without
// sockets; what would be a race is one for ThreadSanitizer, too.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/shared_core.h"
#include "daemon/workers.h"
#include "tests/core/fake_engine.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using core::testing::FakeEngine;

constexpr uint32_t kTenants = 3;  // the first one's prefixes are public
constexpr uint64_t kPoolBytes = 12 * kMiB;
constexpr uint64_t kRowsMax = 400;
const std::vector<std::string> kRetentions = {
    "full", "streamingllm:start_size=3,recent_size=10,positions=original",
    "sepllm:form=static,init_cache_size=2,local_size=33", "full+int8:rows=32,recent=5",
    "knorm:max_capacity=24,recent_size=3"};

core::CoreConfig MakeConfig(const core::SessionLimits& limits) {
  core::CoreConfig config;
  for (uint32_t uid = 1; uid <= kTenants; ++uid) {
    config.tenants.push_back({"t" + std::to_string(uid), {uid}, 6 * kMiB, "full", uid == 1});
  }
  config.prefix_secret.fill(7);
  config.session_limits = limits;
  config.first_extent_bytes = 32 * kKiB;
  config.extent_bytes = 64 * kKiB;
  return config;
}

core::SessionLimits MakeLimits() {
  core::SessionLimits limits;
  limits.sequences_max = 8;
  limits.arena_bytes = kMiB;
  limits.recent_rows_max = 4096;
  return limits;
}

// Engines whose sessions have ended: a job may still be out that reads their segments. Under the
// whole lock.
using Leaving = std::vector<std::unique_ptr<FakeEngine>>;

class TenantLockTest : public ::testing::Test {
 protected:
  TenantLockTest() : pool_(core::testing::MakeTestPool(kPoolBytes)) {
    shared_ = std::make_unique<SharedCore>(MakeConfig(limits_), *pool_);
  }

  void ExpectConserved() {
    const MutexLock lock(shared_->mutex);
    const absl::Status conserved = shared_->core.CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  const core::SessionLimits limits_ = MakeLimits();
  std::unique_ptr<HostPool> pool_;
  Leaving leaving_;  // goes after the core, which writes to them
  std::unique_ptr<SharedCore> shared_;
  // How often a verb was done in a share, and how often it had to be run again.
  std::atomic<uint64_t> in_share_ = 0, again_ = 0, foreign_ = 0, published_ = 0, sessions_ = 0;
};

// An engine's thread. What it has of the fake one, which the daemon's threads write extents into,
// it touches under its tenant's share.
class Engine {
 public:
  Engine(SharedCore& shared, Leaving& leaving, const core::SessionLimits& limits, uint32_t uid,
         uint64_t seed)
      : shared_(shared),
        leaving_(leaving),
        limits_(limits),
        uid_(uid),
        place_(uid - 1),
        random_(seed) {
    Connect();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine() {
    const MutexLock lock(shared_.mutex);
    if (engine_->open()) shared_.core.EndSession(engine_->session_id());
    leaving_.push_back(std::move(engine_));
  }

  void Step(std::atomic<uint64_t>* in_share, std::atomic<uint64_t>* again) {
    if (streams_.empty() || random_() % 64 == 0) return OpenOrClose();
    const size_t at = random_() % streams_.size();
    FakeEngine::Stream& stream = streams_[at];
    const uint64_t what = random_() % 200;
    if (what == 0 && stream.rows >= 16) return Publish(stream);
    if (what < 4) return Truncate(stream, in_share, again);
    bool done = false;
    {
      TenantLock share(shared_, place_);
      core::Session* const session = share.verbs().FindSession(token_);
      if (session == nullptr) return;  // somebody has ended it: the next call connects again
      for (int row = 0; row < 20 && engine_->Writable(stream) > 0; ++row) {
        engine_->WriteRow(stream, static_cast<uint32_t>(random_() % 90 + 3));
      }
      engine_->WriteDesk(stream);
      const std::optional<core::SyncAnswer> answer =
          share.verbs().Sync(*session, {stream.slot, stream.uid, stream.rows + 1, stream.rows});
      done = answer.has_value();
    }
    ++*(done ? in_share : again);
    if (done) return;
    const MutexLock lock(shared_.mutex);
    if (!engine_->open()) return;
    if (!engine_->Sync(stream, stream.rows + 1, stream.rows).status.ok()) {
      Forget(at);  // memory is short
    }
  }

  bool EndIfOver() {
    {
      const MutexLock lock(shared_.mutex);
      if (engine_->open()) return false;
      leaving_.push_back(std::move(engine_));
    }
    streams_.clear();
    Connect();
    return true;
  }
  uint64_t foreign() const { return foreign_; }
  uint64_t published() const { return published_; }

 private:
  void Connect() {
    const MutexLock lock(shared_.mutex);
    engine_ = std::make_unique<FakeEngine>(shared_.core, limits_, uid_);
    token_ = engine_->session().token;
    const absl::StatusOr<uint32_t> model = engine_->RegisterModel(2);
    if (model.ok()) model_ = *model;
  }

  void Forget(size_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared_.mutex) {
    const absl::StatusOr<bool> closed =
        shared_.core.CloseSequence(engine_->session(), streams_[at].slot, streams_[at].uid);
    if (closed.ok() && *closed) streams_.erase(streams_.begin() + static_cast<ptrdiff_t>(at));
  }

  void OpenOrClose() {
    const MutexLock lock(shared_.mutex);
    if (!engine_->open()) return;
    if (!streams_.empty() && (streams_.size() >= 6 || streams_.back().rows > kRowsMax)) {
      return Forget(random_() % streams_.size());
    }
    core::OpenRequest request;
    request.model_id = model_;
    request.retention = kRetentions[random_() % 2 == 0 ? 0 : random_() % kRetentions.size()];
    core::PrefixRequest prefix;
    for (uint32_t row = 0; row < 64; ++row) prefix.tokens.push_back(row % 7 + 3);
    absl::StatusOr<FakeEngine::Stream> stream = random_() % 2 == 0
                                                    ? engine_->Attach(request, "", prefix)
                                                    : engine_->Open(model_, request.retention);
    if (!stream.ok()) return;
    const core::Session& session = engine_->session();
    if (session.sequences[stream->slot]->resuming()) {
      shared_.core.GiveUpOpening(stream->id);
      return;
    }
    if (!session.sequences[stream->slot]->is_tenants_alone()) ++foreign_;
    streams_.push_back(*std::move(stream));
    // What a prefix is of: the first rows of a stream are the prompt that others ask with.
    FakeEngine::Stream& opened = streams_.back();
    while (opened.rows < 64 && engine_->Writable(opened) > 0) {
      engine_->WriteRow(opened, static_cast<uint32_t>(opened.rows % 7 + 3));
    }
  }

  void Publish(FakeEngine::Stream& stream) {
    bool asked = false;
    for (int attempt = 0; attempt < 100; ++attempt) {
      {
        const MutexLock lock(shared_.mutex);
        if (!engine_->open()) return;
        engine_->WriteDesk(stream);
        const core::SaveAnswer answer = engine_->Publish(stream, &asked);
        published_ += answer.ready && answer.status.ok() ? 1 : 0;
        if (answer.ready || !answer.status.ok()) return;
      }
      std::this_thread::yield();
    }
  }

  void Truncate(FakeEngine::Stream& stream, std::atomic<uint64_t>* in_share,
                std::atomic<uint64_t>* again) {
    const uint64_t rows = stream.rows - std::min<uint64_t>(stream.rows, random_() % 12);
    std::optional<core::TruncateAnswer> answer;
    {
      TenantLock share(shared_, place_);
      core::Session* const session = share.verbs().FindSession(token_);
      if (session == nullptr) return;
      engine_->WriteDesk(stream);
      answer = share.verbs().Truncate(*session, stream.slot, stream.uid, rows);
    }
    ++*(answer ? in_share : again);
    if (!answer) {
      const MutexLock lock(shared_.mutex);
      if (!engine_->open()) return;
      answer = shared_.core.Truncate(engine_->session(), stream.slot, stream.uid, rows);
    }
    if (!answer->status.ok() || !answer->ready) return;
    stream.uid = answer->uid;
    stream.rows = rows;
    stream.ids.resize(rows);
    TenantLock share(shared_, place_);
    (void)engine_->Writable(stream);  // takes the newest table that is due
    engine_->WriteDesk(stream);
  }

  SharedCore& shared_;
  Leaving& leaving_;
  const core::SessionLimits limits_;
  const uint32_t uid_;
  const size_t place_;
  std::mt19937_64 random_;
  std::unique_ptr<FakeEngine> engine_;
  core::SessionToken token_;
  uint32_t model_ = 0;
  std::vector<FakeEngine::Stream> streams_;
  uint64_t foreign_ = 0, published_ = 0;
};

TEST_F(TenantLockTest, EnginesWorkersAndWhoeverHasTheWholeLeaveTheBooksRight) {
  const uint64_t seed = core::testing::TestSeed(1);
  auto workers = std::make_unique<Workers>(*shared_, *pool_, 2);
  std::vector<std::thread> engines;
  std::atomic<uint32_t> running = 0;
  for (uint32_t i = 0; i < 2 * kTenants; ++i) {  // two of each tenant
    ++running;
    engines.emplace_back([&, i] {
      Engine engine(*shared_, leaving_, limits_, i % kTenants + 1, seed * 100 + i);
      for (int step = 0; step < 6000; ++step) {
        engine.Step(&in_share_, &again_);
        if (step % 32 == 0 && engine.EndIfOver()) ++sessions_;
      }
      foreign_ += engine.foreign();
      published_ += engine.published();
      --running;
    });
  }
  std::mt19937_64 random(seed);
  while (running > 0) {
    shared_->mutex.LetOthers();
    const MutexLock lock(shared_->mutex);
    core::KvCore& core = shared_->core;
    core.set_now(SystemClock().Now());
    switch (random() % 8) {
      case 0:
        (void)core.TakeBack();
        (void)core.Settle();
        break;
      case 1: {
        const absl::Status conserved = core.CheckConservation();
        EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
        break;
      }
      case 2:
        (void)core.TenantReports();
        break;
      case 3:
        for (const core::SequenceReport& report : core.SequenceReports()) {
          (void)core.Inspect(nullptr, report.identity.id, 0, 0, 8);
          if (random() % 256 == 0) core.EndSession(report.session_id);
        }
        break;
      case 4:
        if (random() % 32 == 0) (void)core.DropPrefixes("");
        break;
      case 5:
        (void)core.PrefixReports();
        (void)core.GiveUpCached(kPoolBytes / 2);
        break;
      default:
        break;
    }
    shared_->progress.NotifyAll();
  }
  for (std::thread& thread : engines) thread.join();
  workers.reset();
  ExpectConserved();
  EXPECT_GT(in_share_, again_);  // else the shares were of no use
  EXPECT_GT(published_, 0U);
  fmt::print("in a share: {}, run again: {}, published: {}, with groups of others: {}, ended: {}\n",
             in_share_.load(), again_.load(), published_.load(), foreign_.load(), sessions_.load());
}

}  // namespace
}  // namespace kvasir
