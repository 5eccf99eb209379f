#include "bench/scale_lock.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "bench/statistics.h"
#include "daemon/shared_core.h"
#include "tests/core/fake_engine.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

using core::testing::FakeEngine;
using Nanoseconds = std::chrono::nanoseconds;

constexpr int kRounds = 7;
constexpr std::chrono::milliseconds kRoundTime{150};
constexpr uint64_t kRowsOfAStream = 1024, kBlock = 16;
constexpr uint32_t kEnginesMax = 8;
// One who has the whole lock again and again, as administrative calls, opening and closing do.
constexpr std::chrono::microseconds kReportEvery{1000};

struct Sample {
  double waited = 0;      // part of the time of calls
  double per_second = 0;  // calls of all
  double p50_ns = 0, p99_ns = 0;
  double again = 0;  // part of the calls that were run once more under the whole lock
};

// An engine that writes a block and asks for the next one, again and again.
class Caller {
 public:
  Caller(SharedCore& shared, const core::SessionLimits& limits, uint32_t uid)
      : shared_(shared), place_(uid - 1) {
    const MutexLock lock(shared.mutex);
    engine_ = std::make_unique<FakeEngine>(shared.core, limits, uid);
    token_ = engine_->session().token;
    const absl::StatusOr<uint32_t> model = engine_->RegisterModel(1);
    KVASIR_CHECK(model.ok(), "no model");
    stream_ = *engine_->Open(*model, "full");
    // Every block that it will ever have, so that no call takes an extent.
    KVASIR_CHECK(engine_->Sync(stream_, kRowsOfAStream + kBlock, std::nullopt).ready, "no rows");
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  void Step(bool in_share) {
    if (stream_.rows >= kRowsOfAStream) return StartOver(in_share);
    for (uint64_t row = 0; row < kBlock; ++row) engine_->WriteRow(stream_, 5);
    engine_->WriteDesk(stream_);
    const core::SyncNeed need{stream_.slot, stream_.uid, stream_.rows + 1, stream_.rows};
    const auto answer = Call<core::SyncAnswer>(
        in_share, [&](auto& verbs, core::Session& session) { return verbs.Sync(session, need); });
    KVASIR_CHECK(answer.ready, "not granted");
  }
  std::vector<Nanoseconds> TakeTimes() { return std::exchange(times_, {}); }
  uint64_t TakeAgain() { return std::exchange(again_, 0); }

 private:
  // The answer of a call, which is timed with its locks.
  template <typename Answer, typename Verb>
  Answer Call(bool in_share, const Verb& verb) {
    const auto start = std::chrono::steady_clock::now();
    std::optional<Answer> answer;
    if (in_share) {
      TenantLock share(shared_, place_);
      core::Session* const session = share.verbs().FindSession(token_);
      if (session != nullptr) answer = verb(share.verbs(), *session);
      again_ += answer ? 0 : 1;
    }
    if (!answer) {
      const MutexLock lock(shared_.mutex);
      const absl::StatusOr<core::Session*> session = shared_.core.FindSession(token_);
      if (session.ok()) answer = verb(shared_.core, **session);
    }
    times_.push_back(std::chrono::steady_clock::now() - start);
    return *answer;
  }

  void StartOver(bool in_share) {
    const auto answer =
        Call<core::TruncateAnswer>(in_share, [&](auto& verbs, core::Session& session) {
          return verbs.Truncate(session, stream_.slot, stream_.uid, 0);
        });
    KVASIR_CHECK(answer.status.ok() && answer.ready, "not truncated");
    stream_.uid = answer.uid;
    stream_.rows = 0;
    stream_.ids.clear();
    (void)engine_->Writable(stream_);
    engine_->WriteDesk(stream_);
  }

  SharedCore& shared_;
  const size_t place_;
  std::unique_ptr<FakeEngine> engine_;
  core::SessionToken token_;
  FakeEngine::Stream stream_;
  std::vector<Nanoseconds> times_;
  uint64_t again_ = 0;
};

class LockBench {
 public:
  explicit LockBench(uint32_t engines) : pool_(core::testing::MakeTestPool(256 * kMiB)) {
    core::CoreConfig config;
    for (uint32_t uid = 1; uid <= engines; ++uid) {
      config.tenants.push_back({fmt::format("t{}", uid), {uid}, 32 * kMiB, "full"});
    }
    limits_.sequences_max = 4;
    limits_.arena_bytes = kMiB;
    limits_.recent_rows_max = 4 * kRowsOfAStream;
    config.session_limits = limits_;
    config.first_extent_bytes = config.extent_bytes = 4 * kMiB;
    shared_ = std::make_unique<SharedCore>(std::move(config), *pool_);
    for (uint32_t uid = 1; uid <= engines; ++uid) {
      callers_.push_back(std::make_unique<Caller>(*shared_, limits_, uid));
    }
  }

  Sample Round(bool in_share, bool beside_reports) {
    const auto waited = [&] {
      return shared_->mutex.whole_waits().time + shared_->mutex.shard_waits().time;
    };
    const Nanoseconds before = waited();
    Nanoseconds waited_by_reports{};
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (const auto& caller : callers_) {
      threads.emplace_back([&, raw = caller.get()] {
        while (!stop) raw->Step(in_share);
      });
    }
    const Instant start = SystemClock().Now();
    while (SystemClock().Now() < start + kRoundTime) {
      std::this_thread::sleep_for(kReportEvery);
      if (!beside_reports) continue;
      const Instant asked = SystemClock().Now();
      const MutexLock lock(shared_->mutex);
      waited_by_reports += SystemClock().Now() - asked;
      (void)shared_->core.TenantReports();
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    const double seconds = std::chrono::duration<double>(SystemClock().Now() - start).count();
    std::vector<Nanoseconds> times;
    Nanoseconds sum{};
    uint64_t again = 0;
    for (const auto& caller : callers_) {
      again += caller->TakeAgain();
      for (const Nanoseconds time : caller->TakeTimes()) {
        times.push_back(time);
        sum += time;
      }
    }
    std::sort(times.begin(), times.end());
    const auto at = [&](size_t percent) {
      return static_cast<double>(times[(times.size() - 1) * percent / 100].count());
    };
    const Nanoseconds by_calls = waited() - before - waited_by_reports;
    return {std::max(0.0, static_cast<double>(by_calls.count()) / static_cast<double>(sum.count())),
            static_cast<double>(times.size()) / seconds, at(50), at(99),
            static_cast<double>(again) / static_cast<double>(times.size())};
  }

 private:
  std::unique_ptr<HostPool> pool_;
  core::SessionLimits limits_;
  std::vector<std::unique_ptr<Caller>> callers_;  // go after the core, which writes to them
  std::unique_ptr<SharedCore> shared_;
};

double MedianField(const std::vector<Sample>& samples, double Sample::*field) {
  std::vector<double> values;
  for (const Sample& sample : samples) values.push_back(sample.*field);
  return MedianOf(std::move(values)).median;
}

void AddRow(const std::string& name, const std::vector<Sample>& samples,
            std::optional<double> reference, Report* report) {
  Row row;
  row.name = name;
  row.value = MedianField(samples, &Sample::waited);
  row.unit = "of a call";
  row.reference = reference;
  row.extra = {{"calls_per_s", MedianField(samples, &Sample::per_second)},
               {"p50_ns", MedianField(samples, &Sample::p50_ns)},
               {"p99_ns", MedianField(samples, &Sample::p99_ns)},
               {"run_again", MedianField(samples, &Sample::again)},
               {"samples", samples.size()}};
  report->Add(std::move(row));
}

}  // namespace

void AddLockRows(Report* report) {
  for (const bool beside_reports : {false, true}) {
    for (uint32_t engines = 1; engines <= kEnginesMax; engines *= 2) {
      LockBench bench(engines);
      std::vector<Sample> whole, share;
      for (int round = 0; round < kRounds; ++round) {
        const Sample one_lock = bench.Round(/*in_share=*/false, beside_reports);
        const Sample shares = bench.Round(/*in_share=*/true, beside_reports);
        if (round == 0) continue;  // warm-up
        whole.push_back(one_lock);
        share.push_back(shares);
      }
      const std::string of =
          fmt::format("{} tenants{}", engines, beside_reports ? ", reports" : "");
      AddRow("scale/lock_wait/one lock/" + of, whole, std::nullopt, report);
      AddRow("scale/lock_wait/shares/" + of, share, MedianField(whole, &Sample::waited), report);
    }
  }
}

}  // namespace kvasir::bench
