// SIGKILL of engines and of the daemon, at moments that a seed chooses: what the dead one had comes
// back, nobody else notices, and nobody waits for ever.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"
#include "tests/support/environment.h"
#include "tests/support/eventually.h"

namespace kvasir::testing {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;

constexpr uint32_t kCrashUid = 12001;

std::vector<uint64_t> StreamingRule(uint64_t start, uint64_t recent, uint64_t row) {
  std::vector<uint64_t> rows;
  for (uint64_t j = 0; j <= row; ++j) {
    if (j < start || row - j < recent) rows.push_back(j);
  }
  return rows;
}

// An engine in this process that checks every row it sees, until it is told to stop.
void StreamAndCheck(Session& session, const ModelHandle& model, const ModelSpec& spec,
                    const std::atomic<bool>& stop, std::atomic<uint64_t>* rows_done) {
  while (!stop) {
    absl::StatusOr<Sequence> sequence =
        session.OpenSequence({model, "streamingllm:start_size=4,recent_size=37", 0, "watch"});
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    for (uint64_t row = 0; row < 200 && !stop; ++row) {
      absl::StatusOr<StepView> step = sequence->Begin(1);
      ASSERT_TRUE(step.ok()) << MessageOf(step.status());
      WriteTestRows(*step, spec);
      ASSERT_EQ(VisibleRows(step->layers[0], row, 0, spec), StreamingRule(4, 37, row));
      const absl::Status committed = sequence->Commit(std::vector<uint32_t>{3});
      ASSERT_TRUE(committed.ok()) << MessageOf(committed);
      ++*rows_done;
    }
  }
}

class EngineCrashTest : public DaemonFixture {
 protected:
  void SetUp() override {
    ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    Config config = MakeConfig();
    config.server.worker_threads = 2;
    if (::geteuid() == 0) {
      Config::Tenant tenant = config.tenants[0];
      tenant.name = "crash";
      tenant.uids = {kCrashUid};
      tenant.limit_bytes = 16 * kMiB;
      config.tenants.push_back(tenant);
    }
    StartServer(config);
  }

  // Starts a test engine, lets it do some things, kills it, waits until its tenant is charged
  // nothing.
  void KillOne(std::mt19937_64& random, bool as_other_user) {
    std::vector<std::string> argv = {SiblingProgram("test_engine"),
                                     folder_.path() + "/control.sock",
                                     folder_.path() + "/data.sock", std::to_string(random())};
    argv.push_back(as_other_user ? std::to_string(kCrashUid) : "-");
    if (random() % 2 == 0) argv.push_back("asked");
    ChildProcess engine(argv, {});
    const uint64_t things = random() % 3 == 0 ? random() % 8 : random() % 400;
    for (uint64_t i = 0; i < things; ++i) {
      const std::optional<char> byte = engine.ReadByte();
      if (!byte) FAIL() << "the engine ended by itself: " << engine.ReadErrors();
    }
    engine.Signal(SIGKILL);
    ASSERT_EQ(engine.Wait(), -SIGKILL);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    for (;;) {
      const StatsSnapshot snapshot = server_->Snapshot();
      const TenantSnapshot& tenant = snapshot.tenants.back();
      if (tenant.sessions == 0 && tenant.charged_bytes == 0 && tenant.held_bytes == 0) break;
      ASSERT_LT(std::chrono::steady_clock::now(), deadline)
          << "after " << things << " things: sessions=" << tenant.sessions
          << " held=" << tenant.held_bytes << " charged=" << tenant.charged_bytes;
      std::this_thread::yield();
    }
    SharedCore& shared = server_->shared_for_test();
    MutexLock lock(shared.mutex);
    const absl::Status conserved = shared.core.CheckConservation();
    ASSERT_TRUE(conserved.ok()) << MessageOf(conserved);
  }
};

TEST_F(EngineCrashTest, EverythingComesBack) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t rounds = FromEnvironment("KVASIR_ROUNDS", 40);
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(i);
    KillOne(random, ::geteuid() == 0);
  }
}

TEST_F(EngineCrashTest, OthersDoNotNotice) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: the engine that dies is another user's";
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t rounds = FromEnvironment("KVASIR_ROUNDS", 40);
  const std::unique_ptr<Session> session = Connect();
  ASSERT_NE(session, nullptr);
  const ModelSpec spec = TinySpec(1);
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok()) << MessageOf(model.status());
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rows{0};
  std::thread watcher([&] { StreamAndCheck(*session, *model, spec, stop, &rows); });
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(i);
    const uint64_t before = rows;
    KillOne(random, true);
    while (rows == before && !HasFailure()) std::this_thread::yield();  // it goes on
  }
  stop = true;
  watcher.join();
  EXPECT_GT(rows, rounds);
}

class DaemonCrashTest : public DaemonFixture {
 protected:
  void SetUp() override { ASSERT_TRUE(daemon_.Start(MakeConfig())); }
  void TearDown() override {}

  absl::StatusOr<std::unique_ptr<Session>> ConnectWithin(std::chrono::milliseconds deadline) {
    ConnectOptions options = MakeConnectOptions();
    options.deadline = deadline;
    return Session::Connect(options);
  }

  struct Stream {
    std::unique_ptr<Session> session;
    Sequence sequence;
  };
  absl::StatusOr<Stream> OpenStream(std::chrono::milliseconds deadline) {
    absl::StatusOr<std::unique_ptr<Session>> session = ConnectWithin(deadline);
    if (!session.ok()) return session.status();
    absl::StatusOr<ModelHandle> model = (*session)->RegisterModel(spec_);
    if (!model.ok()) return model.status();
    absl::StatusOr<Sequence> sequence =
        (*session)->OpenSequence({*model, "streamingllm:start_size=4,recent_size=20", 0, ""});
    if (!sequence.ok()) return sequence.status();
    return Stream{*std::move(session), *std::move(sequence)};
  }

  // Writes one row more.
  absl::Status Step(Sequence& sequence) {
    absl::StatusOr<StepView> step = sequence.Begin(1);
    if (!step.ok()) return step.status();
    WriteTestRows(*step, spec_);
    EXPECT_EQ(VisibleRows(step->layers[0], step->row, 0, spec_), StreamingRule(4, 20, step->row));
    return sequence.Commit(std::vector<uint32_t>{5});
  }

  // Steps until the first error; every block border asks the daemon, so few are needed.
  absl::Status StepUntilError(Sequence& sequence) {
    for (int i = 0; i < 200; ++i) {
      const absl::Status status = Step(sequence);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // A signal is sent before every thread has met it.
  static bool HasStopped(pid_t pid) {
    for (const auto& thread :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
      std::ifstream status(thread.path() / "status");
      std::string line;
      while (std::getline(status, line) && !line.starts_with("State:")) {
      }
      if (line.find("T (stopped)") == std::string::npos) return false;
    }
    return true;
  }

  const ModelSpec spec_ = TinySpec(1);
  DaemonProcess daemon_{folder_.path()};
};

TEST_F(DaemonCrashTest, ClientsGetErrorsAndKeepWhatTheyHaveMapped) {
  absl::StatusOr<Stream> stream = OpenStream(std::chrono::seconds(5));
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Step(stream->sequence).ok());
  absl::StatusOr<StepView> step = stream->sequence.Begin(1);
  ASSERT_TRUE(step.ok()) << MessageOf(step.status());
  WriteTestRows(*step, spec_);
  daemon_.process().Signal(SIGKILL);
  EXPECT_EQ(daemon_.process().Wait(), -SIGKILL);
  EXPECT_EQ(VisibleRows(step->layers[0], step->row, 0, spec_), StreamingRule(4, 20, step->row));
  EXPECT_EQ(StepUntilError(stream->sequence).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->sequence.Truncate(90).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->sequence.MeasureFootprint().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->session->RegisterModel(spec_).status().code(), absl::StatusCode::kUnavailable);

  // The next daemon finds the socket files of the dead one.
  const uint64_t epoch = stream->session->boot_epoch();
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  EXPECT_EQ(StepUntilError(stream->sequence).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->sequence.Close().code(), absl::StatusCode::kUnavailable);
  absl::StatusOr<Stream> again = OpenStream(std::chrono::seconds(5));
  ASSERT_TRUE(again.ok()) << MessageOf(again.status());
  EXPECT_NE(again->session->boot_epoch(), epoch);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Step(again->sequence).ok());
}

TEST_F(DaemonCrashTest, AStoppedDaemonIsADeadlineNotAHang) {
  absl::StatusOr<Stream> stream = OpenStream(std::chrono::milliseconds(300));
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(Step(stream->sequence).ok());
  daemon_.process().Signal(SIGSTOP);
  ASSERT_TRUE(Eventually([&] { return HasStopped(daemon_.process().pid()); }));
  EXPECT_EQ(StepUntilError(stream->sequence).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ConnectWithin(std::chrono::milliseconds(100)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  daemon_.process().Signal(SIGCONT);
  EXPECT_TRUE(stream->sequence.Close().ok());
}

TEST_F(DaemonCrashTest, KilledAtAnyMoment) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t rounds = std::max<uint64_t>(1, FromEnvironment("KVASIR_ROUNDS", 40) / 5);
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(i);
    std::atomic<uint64_t> steps{0};
    std::atomic<bool> ended{false};
    absl::Status end;
    std::thread engine([&] {
      absl::StatusOr<Stream> stream = OpenStream(std::chrono::seconds(5));
      end = stream.status();
      while (end.ok()) {
        end = Step(stream->sequence);
        ++steps;
      }
      ended = true;
    });
    const uint64_t wanted = random() % 300;
    while (steps < wanted && !ended) std::this_thread::yield();
    daemon_.process().Signal(SIGKILL);
    EXPECT_EQ(daemon_.process().Wait(), -SIGKILL);
    engine.join();
    EXPECT_THAT(end.code(),
                AnyOf(Eq(absl::StatusCode::kUnavailable), Eq(absl::StatusCode::kDeadlineExceeded)))
        << MessageOf(end);
    ASSERT_TRUE(daemon_.Start(MakeConfig()));
  }
}

// With scores, selections and lookups under way.
TEST_F(DaemonCrashTest, KilledUnderAnEngineThatIsAsked) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  const uint64_t rounds = std::max<uint64_t>(1, FromEnvironment("KVASIR_ROUNDS", 40) / 10);
  for (uint64_t i = 0; i < rounds && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(i);
    ChildProcess engine({SiblingProgram("test_engine"), folder_.path() + "/control.sock",
                         folder_.path() + "/data.sock", std::to_string(random()), "-", "asked"},
                        {});
    for (uint64_t things = random() % 600; things > 0; --things) {
      if (!engine.ReadByte()) FAIL() << "the engine ended by itself: " << engine.ReadErrors();
    }
    daemon_.process().Signal(SIGKILL);
    EXPECT_EQ(daemon_.process().Wait(), -SIGKILL);
    while (engine.ReadByte()) continue;  // what it had done before
    EXPECT_EQ(engine.Wait(), 3);         // its next call fails, and does not hang
    ASSERT_TRUE(daemon_.Start(MakeConfig()));
  }
}

}  // namespace
}  // namespace kvasir::testing
