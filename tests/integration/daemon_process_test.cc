// kvasird as a process: what it says when it cannot start, what it tells the service manager, how
// it ends.
#include "tests/support/daemon_process.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class DaemonProcessTest : public DaemonFixture {
 protected:
  void SetUp() override {}
  void TearDown() override {}

  // Starts a daemon that must not come up; returns what it says.
  std::string StartAndFail(const Config& config, const std::vector<std::string>& prefix = {}) {
    TemporaryFolder folder;
    DaemonProcess daemon(folder.path());
    EXPECT_FALSE(daemon.Start(config, prefix));
    EXPECT_EQ(daemon.process().Wait(), 1);
    return daemon.process().ReadErrors();
  }

  bool Exists(const std::string& name) const {
    return std::filesystem::exists(folder_.path() + "/" + name);
  }

  // Exit code of `kvasird --check-config` for this text, and what it printed on either stream.
  int CheckConfig(const std::string& text, std::string* output) {
    const std::string path = folder_.path() + "/checked.toml";
    std::ofstream(path) << text;
    ChildProcess process({SiblingProgram("kvasird"), "--config=" + path, "--check-config"}, {});
    output->clear();
    while (const std::optional<std::string> line = process.ReadLine()) *output += *line + "\n";
    *output += process.ReadErrors();
    return process.Wait();
  }

  DaemonProcess daemon_{folder_.path()};
};

TEST_F(DaemonProcessTest, TellsTheServiceManagerAndLeavesNothing) {
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  EXPECT_TRUE(Exists("control.sock"));
  EXPECT_TRUE(Exists("data.sock"));
  daemon_.process().Signal(SIGTERM);
  EXPECT_THAT(daemon_.NextNotification(), HasSubstr("STOPPING=1"));
  EXPECT_EQ(daemon_.process().Wait(), 0);
  EXPECT_FALSE(Exists("control.sock"));
  EXPECT_FALSE(Exists("data.sock"));
}

TEST_F(DaemonProcessTest, ASecondOneOnTheFolderFailsAtOnce) {
  std::unique_ptr<DaemonProcess> second;
  EXPECT_NONFATAL_FAILURE(second = std::make_unique<DaemonProcess>(folder_.path()),
                          "another DaemonProcess has this folder");
  EXPECT_FALSE(second->Start(MakeConfig()));
  EXPECT_FALSE(second->has_process());
  second.reset();  // and takes nothing from the first
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  daemon_.process().Signal(SIGTERM);
  EXPECT_EQ(daemon_.process().Wait(), 0);
}

TEST_F(DaemonProcessTest, StopsWhileClientsAreBusy) {
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  const std::unique_ptr<Session> session = Connect();
  ASSERT_NE(session, nullptr);
  const ModelSpec spec = TinySpec(1);
  const absl::StatusOr<ModelHandle> model = session->RegisterModel(spec);
  ASSERT_TRUE(model.ok());
  absl::StatusOr<Sequence> sequence =
      session->OpenSequence({*model, "sepllm:form=static,local_size=16", 0, ""});
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  for (int row = 0; row < 100; ++row) {
    if (row == 50) daemon_.process().Signal(SIGTERM);
    const absl::StatusOr<StepView> step = sequence->Begin(1);
    if (!step.ok()) {
      EXPECT_EQ(step.status().code(), absl::StatusCode::kUnavailable) << MessageOf(step.status());
      break;
    }
    (void)sequence->Commit(std::vector<uint32_t>{1});
  }
  EXPECT_EQ(daemon_.process().Wait(), 0);
  EXPECT_FALSE(Exists("data.sock"));
}

TEST_F(DaemonProcessTest, ASecondDaemonIsRefusedAndTheFirstGoesOn) {
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  EXPECT_THAT(StartAndFail(MakeConfig()), HasSubstr("another kvasird is running"));
  Config half = MakeConfig();  // only one socket is taken
  half.server.control_socket = folder_.path() + "/other.sock";
  EXPECT_THAT(StartAndFail(half),
              AllOf(HasSubstr("listens on the socket"), HasSubstr("data.sock")));
  EXPECT_FALSE(Exists("other.sock"));
  EXPECT_NE(Connect(), nullptr);
}

TEST_F(DaemonProcessTest, StaleSocketFilesAreReplaced) {
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  daemon_.process().Signal(SIGKILL);
  (void)daemon_.process().Wait();
  ASSERT_TRUE(Exists("data.sock"));
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  EXPECT_NE(Connect(), nullptr);
}

TEST_F(DaemonProcessTest, APathThatIsAnotherKindOfFileIsLeftAlone) {
  for (const char* name : {"control.sock", "data.sock"}) {
    const std::string path = folder_.path() + "/" + name;
    std::ofstream(path) << "precious";
    EXPECT_THAT(StartAndFail(MakeConfig()),
                AllOf(HasSubstr("another kind of file"), HasSubstr(path)));
    std::string text;
    std::ifstream(path) >> text;
    EXPECT_EQ(text, "precious");
    std::filesystem::remove(path);
  }
}

TEST_F(DaemonProcessTest, APoolThatDoesNotFitIsAClearError) {
  Config config = MakeConfig();
  config.memory.pool_bytes = uint64_t{1} << 45;
  EXPECT_THAT(StartAndFail(config),
              AllOf(HasSubstr("memory.pool_bytes=35184372088832"), HasSubstr("available_bytes=")));
  EXPECT_FALSE(Exists("control.sock"));
}

TEST_F(DaemonProcessTest, LowMemlockLimit) {
  const std::vector<std::string> low = {"/usr/bin/prlimit", "--memlock=65536:65536", "--"};
  std::vector<std::string> prefix = low;
  if (::geteuid() == 0) {  // root's capability overrides the limit
    prefix.insert(prefix.end(),
                  {"/usr/bin/setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"});
  }
  Config config = MakeConfig();
  config.memory.lock = Config::Memory::Lock::kRequire;
  EXPECT_THAT(StartAndFail(config, prefix), AllOf(HasSubstr("memory.lock=require"),
                                                  HasSubstr("pool_bytes="), HasSubstr("65536")));
  config.memory.lock = Config::Memory::Lock::kTry;
  config.server.log_level = "warn";
  ASSERT_TRUE(daemon_.Start(config, prefix));
  RawCalls admin(folder_.path() + "/control.sock", "");
  v1::GetStatsResponse stats;
  ASSERT_TRUE(admin.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  EXPECT_FALSE(stats.memory_locked());
  daemon_.process().Signal(SIGTERM);
  EXPECT_EQ(daemon_.process().Wait(), 0);
  EXPECT_THAT(daemon_.process().ReadErrors(), HasSubstr("memory is not locked"));
}

TEST_F(DaemonProcessTest, CheckConfigExitCodes) {
  std::string output;
  EXPECT_EQ(CheckConfig(EffectiveConfigToml(MakeConfig()), &output), 0) << output;
  EXPECT_THAT(output, HasSubstr("pool_bytes"));
  EXPECT_EQ(CheckConfig("[memory]\npool_bytes = 5\n", &output), 2);
  EXPECT_THAT(output, AllOf(HasSubstr("memory.pool_bytes"), HasSubstr("checked.toml:2")));
  EXPECT_EQ(CheckConfig("[retention]\ndefault = \"nonsense\"\n", &output), 2);
  EXPECT_THAT(output, HasSubstr("nonsense"));
  ChildProcess missing({SiblingProgram("kvasird"), "--config=/nowhere.toml", "--check-config"}, {});
  EXPECT_THAT(missing.ReadErrors(), HasSubstr("/nowhere.toml"));
  EXPECT_EQ(missing.Wait(), 2);
  ChildProcess unknown({SiblingProgram("kvasird"), "--nonsense"}, {});
  EXPECT_EQ(unknown.Wait(), 2);
}

TEST_F(DaemonProcessTest, HealthAndReflectionAnswer) {
  ASSERT_TRUE(daemon_.Start(MakeConfig()));
  RawCalls calls(folder_.path() + "/control.sock", "");
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse health;
  const auto stub = grpc::health::v1::Health::NewStub(calls.channel());
  ASSERT_TRUE(stub->Check(&context, grpc::health::v1::HealthCheckRequest(), &health).ok());
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  grpc::health::v1::HealthCheckRequest part;
  part.set_service("kvasir.v1.KvCache");
  grpc::ClientContext part_context;
  EXPECT_EQ(stub->Check(&part_context, part, &health).error_code(), grpc::StatusCode::NOT_FOUND);

  // Reflection by its wire form: a request with field 7 (list_services), and the names in the
  // answer.
  grpc::ClientContext stream_context;
  grpc::CompletionQueue queue;
  grpc::GenericStub generic(calls.channel());
  const auto stream = generic.PrepareCall(
      &stream_context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  int tag = 0;
  const auto next = [&] {
    void* got = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&got, &ok) && ok);
  };
  stream->StartCall(&tag);
  next();
  const grpc::Slice request(std::string("\x3a\x01*", 3));
  stream->Write(grpc::ByteBuffer(&request, 1), &tag);
  next();
  grpc::ByteBuffer answer;
  stream->Read(&answer, &tag);
  next();
  grpc::Slice flat;
  ASSERT_TRUE(answer.DumpToSingleSlice(&flat).ok());
  const std::string names(reinterpret_cast<const char*>(flat.begin()), flat.size());
  EXPECT_THAT(names, AllOf(HasSubstr("kvasir.v1.KvCache"), HasSubstr("kvasir.v1.Admin")));
  stream_context.TryCancel();
}

}  // namespace
}  // namespace kvasir::testing
