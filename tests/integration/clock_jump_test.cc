// A daemon whose wall clock jumps by hours, forward and back, while engines publish and attach, an
// operator drains, a lease runs, a disk hangs or the daemon stops: rows stay right, no call fails
// or waits for it, and what has a bound keeps it.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/integration/tier_faults.h"
#include "tests/support/child_process.h"
#include "tests/support/environment.h"
#include "tests/support/eventually.h"
#include "tests/support/kill_load.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

constexpr int64_t kHour = 3600;

class ClockJumpTest : public TierFaultsTest {
 protected:
  // From now on the daemon's wall clock is off by so much; it has been read since.
  void JumpTo(int64_t offset_s) {
    faults_.board().clock_offset_s = offset_s;
    const uint64_t readings = faults_.board().clock_readings;
    EXPECT_TRUE(Eventually([&] {
      ExpectHealthy();
      return faults_.board().clock_readings > readings;
    }));
  }

  void ExpectHealthy() const {
    RawCalls calls(daemon_.server().control_socket, "");
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse health;
    const grpc::Status status =
        grpc::health::v1::Health::NewStub(calls.channel())
            ->Check(&context, grpc::health::v1::HealthCheckRequest(), &health);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  }

  // A session with its one model, for what TierEngine does not do.
  struct Engine {
    std::unique_ptr<Session> session;
    ModelHandle model;
  };
  Engine ConnectPlain() const {
    ConnectOptions options;
    options.control_socket = daemon_.server().control_socket;
    options.data_socket = daemon_.server().data_socket;
    options.deadline = std::chrono::minutes(1);
    absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(options);
    EXPECT_TRUE(session.ok()) << MessageOf(session.status());
    if (!session.ok()) return {};
    absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(TinySpec(2));
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    return {*std::move(session), model.ok() ? *std::move(model) : ModelHandle()};
  }

  // Opens a sequence under a lease on the first prompt.
  static absl::Status OpenUnder(const PrefixLease& lease, const Engine& engine) {
    OpenOptions options;
    options.model = engine.model;
    options.retention = "full";
    options.prefix = PrefixOptions{};
    options.prefix->tokens = Prompt(0);
    options.lease = lease.id();
    return engine.session->OpenSequence(options).status();
  }
  static absl::StatusOr<PrefixLease> Lease(const Engine& engine, std::chrono::milliseconds ttl) {
    LeaseOptions options;
    options.members = {{.model_fingerprint = engine.model.fingerprint, .retention = "full"}};
    options.prefix.tokens = Prompt(0);
    options.ttl = ttl;
    return engine.session->LeasePrefix(options);
  }
};

// Publishes and attaches until it is told to end. Errors: of the first call that fails.
absl::Status Work(const TierDaemon& daemon, uint64_t seed, const std::atomic<bool>& done,
                  std::atomic<uint64_t>& steps) {
  std::mt19937_64 random(seed);
  const auto is_exhausted = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kResourceExhausted;
  };
  while (!done) {
    absl::StatusOr<TierEngine> engine = daemon.Connect();
    absl::Status status = engine.status();
    for (int i = 0; status.ok() && i < 10; ++i) {
      const std::vector<uint32_t> prompt = KillPrompt(random() % kKillPrompts);
      status = random() % 2 == 0 ? engine->Publish(prompt) : engine->Attach(prompt).status();
      ++steps;
    }
    // The other engine may hold all that the tenant has.
    if (!status.ok() && !is_exhausted(status)) return status;
  }
  return absl::OkStatus();
}

TEST_F(ClockJumpTest, UnderLoadNobodyNotices) {
  // Less than the prompts take together, so that they are written down, evicted and loaded.
  daemon_.config().tenants[0].limit_bytes = 8 * kMiB;
  daemon_.config().tier.write_down_high_percent = 40;
  daemon_.config().tier.write_down_low_percent = 20;
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", 20240229));
  ASSERT_TRUE(daemon_.Start());
  std::atomic<bool> done{false};
  std::atomic<uint64_t> steps{0}, drains{0};
  std::vector<absl::Status> ends(2);
  std::vector<std::thread> threads;
  for (absl::Status& end : ends) {
    threads.emplace_back([&, seed = random()] { end = Work(daemon_, seed, done, steps); });
  }
  threads.emplace_back([&] {
    for (; !done; ++drains) (void)daemon_.Drain();  // what there is no room for stays, and is said
  });
  // Each is a jump against the one before; the last is a clock that is never where it was.
  for (const int64_t hours : {3, -3, 40, 0, -24 * 400, 24 * 400, 1, -1, 0, 2}) {
    faults_.board().clock_restless = hours == 2;
    JumpTo(hours * kHour);
    const uint64_t steps_then = steps, drains_then = drains;
    EXPECT_TRUE(Eventually([&] { return steps > steps_then + 8 && drains > drains_then + 1; }))
        << "hours=" << hours;
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) EXPECT_TRUE(end.ok()) << MessageOf(end);
  EXPECT_FALSE(daemon_.Tier().left_out());
  EXPECT_EQ(daemon_.Tier().tenants(0).load_failures(), 0U);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(ClockJumpTest, TheDaemonStopsAndFindsItsPrefixesAgain) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  for (const int64_t hours : {-5, 5, -24 * 400, 0}) {
    SCOPED_TRACE(hours);
    JumpTo(hours * kHour);
    daemon_.Stop();
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  }
  // And while it stops: the drain of the stop is held at its first write meanwhile.
  ASSERT_NO_FATAL_FAILURE(ExpectGoesOn());
  std::atomic<bool> stopped{false};
  std::thread jumping([&] {
    for (int64_t i = 0; !stopped; ++i) {
      faults_.board().clock_offset_s = (i % 7 - 3) * kHour;
      std::this_thread::yield();
    }
  });
  daemon_.Stop();
  stopped = true;
  jumping.join();
  faults_.board().clock_offset_s = 0;
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(FoundInAll(), kPrompts * kRows);
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(ClockJumpTest, ALeaseEndsWithItsOwnTimeAndNoOther) {
  daemon_.config().prefix.lease_ms_max = 3'600'000;
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(PublishAll());
  const Engine engine = ConnectPlain();
  ASSERT_NE(engine.session, nullptr);
  absl::StatusOr<PrefixLease> longer = Lease(engine, std::chrono::hours(1));
  ASSERT_TRUE(longer.ok()) << MessageOf(longer.status());
  EXPECT_EQ(longer->rows(), kRows);
  JumpTo(24 * kHour);
  EXPECT_EQ(OpenUnder(*longer, engine).code(), absl::StatusCode::kOk);
  absl::StatusOr<PrefixLease> brief = Lease(engine, std::chrono::milliseconds(30));
  ASSERT_TRUE(brief.ok()) << MessageOf(brief.status());
  JumpTo(-24 * kHour);
  EXPECT_TRUE(
      Eventually([&] { return OpenUnder(*brief, engine).code() == absl::StatusCode::kNotFound; }));
  EXPECT_EQ(OpenUnder(*longer, engine).code(), absl::StatusCode::kOk);
  EXPECT_TRUE(longer->Release().ok());
}

// A disk that does not answer: who may wait long is not sent away by a jump forward, and who may
// not is not held by one back.
TEST_F(ClockJumpTest, WaitsKeepTheirBounds) {
  ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
  faults_.board().hold_reads = true;
  std::atomic<bool> found_it{false}, was_cut{false};
  uint64_t found = 0;
  std::thread patient([&] {
    absl::StatusOr<TierEngine> engine = daemon_.Connect(2, std::chrono::minutes(20));
    found = engine.ok() ? engine->AttachedRows(Prompt(0)).value_or(0) : 0;
    found_it = true;
  });
  EXPECT_TRUE(Eventually([&] { return faults_.board().held > 0; }));
  JumpTo(24 * kHour);
  ExpectGoesOn();
  EXPECT_FALSE(found_it);
  // Half of a call's time is spent on the wait, then it computes.
  absl::StatusOr<TierEngine> engine = daemon_.Connect(2, std::chrono::seconds(4));
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  absl::StatusOr<uint64_t> rows = 1;
  std::thread hasty([&] {
    rows = engine->AttachedRows(Prompt(1));
    was_cut = true;
  });
  JumpTo(-24 * kHour);
  EXPECT_TRUE(Eventually([&] { return was_cut.load(); }));
  EXPECT_EQ(rows.value_or(1), 0U) << MessageOf(rows.status());
  EXPECT_FALSE(found_it);
  faults_.board().hold_reads = false;
  hasty.join();
  patient.join();
  EXPECT_EQ(found, kRows);
  engine = absl::CancelledError("its session ends");
  daemon_.ExpectNothingLeft();
  daemon_.Stop();
}

TEST_F(ClockJumpTest, ATierThatWasLeftOutIsTriedAgain) {
  for (const int64_t hours : {-24, 24}) {
    SCOPED_TRACE(hours);
    ASSERT_NO_FATAL_FAILURE(StoreAllAndRestart());
    faults_.Set(FaultPlace::kSegmentRead, EIO);
    EXPECT_EQ(FoundInAll(), 0U);
    EXPECT_TRUE(Eventually([&] { return daemon_.Tier().left_out(); }));
    faults_.Clear();
    JumpTo(hours * kHour);
    EXPECT_TRUE(Eventually([&] { return FoundInAll() == kPrompts * kRows; }));
    EXPECT_FALSE(daemon_.Tier().left_out());
    JumpTo(0);
    daemon_.ExpectNothingLeft();
    daemon_.Stop();
  }
}

// An engine whose own clock jumps with the daemon's.
TEST_F(ClockJumpTest, AnEnginesClockMayJumpAsWell) {
  ASSERT_TRUE(daemon_.Start());
  std::vector<std::string> environment = faults_.Environment();
  for (const int64_t hours : {30, -30}) {
    faults_.board().clock_offset_s = hours * kHour;
    faults_.board().clock_restless = true;
    ChildProcess engine({SiblingProgram("tier_actor"), daemon_.server().control_socket,
                         daemon_.server().data_socket, "7", std::to_string(kRows)},
                        environment);
    EXPECT_EQ(engine.ReadLine().value_or(""), std::to_string(kRows)) << engine.ReadErrors();
    EXPECT_EQ(engine.Wait(), 0);
  }
  daemon_.Stop();
}

}  // namespace
}  // namespace kvasir::testing
