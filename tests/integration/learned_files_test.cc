// What eviction has learned lives on over a restart; what does not match is dropped, and the daemon
// serves all the same.
#include "daemon/learned_files.h"

#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/small_file.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LearnedFilesTest : public DaemonFixture {
 protected:
  void SetUp() override {}
  void TearDown() override {}

  Config ConfigWith(const std::string& eviction = "return-hazard") const {
    Config config = MakeConfig();
    config.prefix.state_dir = state_;
    config.prefix.eviction = eviction;
    return config;
  }

  // One prompt is published, and comes back.
  void Serve() {
    const std::unique_ptr<Session> session = Connect();
    ASSERT_NE(session, nullptr);
    const absl::StatusOr<ModelHandle> model = session->RegisterModel(TinySpec(1));
    ASSERT_TRUE(model.ok()) << MessageOf(model.status());
    OpenOptions options;
    options.model = *model;
    options.retention = "full";
    options.prefix = PrefixOptions{};
    options.prefix->tokens.assign(200, 7);
    for (int turn = 0; turn < 5; ++turn) {
      absl::StatusOr<Sequence> sequence = session->OpenSequence(options);
      ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
      while (sequence->rows() < 200) {
        const absl::StatusOr<StepView> step =
            sequence->Begin(static_cast<uint32_t>(200 - sequence->rows()));
        ASSERT_TRUE(step.ok()) << MessageOf(step.status());
        WriteTestRows(*step, TinySpec(1));
        ASSERT_TRUE(sequence->Commit(std::vector<uint32_t>(step->count, 7)).ok());
      }
      if (turn > 0) continue;
      ASSERT_TRUE(sequence->PublishPrefix().ok());
    }
  }

  // kvasird from its start to SIGTERM; what it logs.
  std::string RunProgram(const Config& config, bool serve) {
    const TemporaryFolder folder;
    DaemonProcess daemon(folder.path());
    EXPECT_TRUE(daemon.Start(config));
    if (serve) Serve();
    daemon.process().Signal(SIGTERM);
    EXPECT_EQ(daemon.process().Wait(), 0);
    return daemon.process().ReadErrors();
  }

  std::string Learned() {
    SharedCore& shared = server_->shared_for_test();
    MutexLock lock(shared.mutex);
    return shared.core.SaveLearned("test");
  }

  const std::string state_ = folder_.path() + "/state";
  const std::string file_ = LearnedFiles::PathOf(state_, "test");
};

TEST_F(LearnedFilesTest, ARestartedDaemonGoesOnWithWhatWasLearned) {
  StartServer(ConfigWith());
  const std::string untaught = Learned();
  Serve();
  if (HasFatalFailure()) return;
  server_.reset();
  struct stat info {};
  ASSERT_EQ(::stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_THAT(file_, Not(HasSubstr("test.")));  // a digest
  const absl::StatusOr<std::string> saved = ReadSmallFile(file_, core::kLearnedBytesMax);
  ASSERT_TRUE(saved.ok());
  EXPECT_NE(*saved, untaught);
  StartServer(ConfigWith());
  EXPECT_EQ(Learned(), *saved);
  server_.reset();
  EXPECT_EQ(*ReadSmallFile(file_, core::kLearnedBytesMax), *saved);
}

TEST_F(LearnedFilesTest, WhatDoesNotMatchIsDroppedAndReplaced) {
  StartServer(ConfigWith());
  const std::string untaught = Learned();
  Serve();
  if (HasFatalFailure()) return;
  server_.reset();
  std::string damaged = *ReadSmallFile(file_, core::kLearnedBytesMax);
  damaged[100] ^= 1;
  for (const std::string& bytes : {damaged, std::string("nonsense"), std::string(2 << 20, 'x')}) {
    ASSERT_TRUE(ReplaceFile(file_, bytes, 0600).ok());
    StartServer(ConfigWith());
    EXPECT_EQ(Learned(), untaught);
    server_.reset();
    EXPECT_EQ(*ReadSmallFile(file_, core::kLearnedBytesMax), untaught);
  }
  StartServer(ConfigWith("arc"));
  const std::string arc = Learned();
  server_.reset();
  EXPECT_EQ(*ReadSmallFile(file_, core::kLearnedBytesMax), arc);
  // One that learns nothing leaves nothing of others.
  StartServer(ConfigWith("lru"));
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(LearnedFilesTest, TheProgramSavesAtItsEndAndSaysWhatItDrops) {
  Config config = ConfigWith();
  config.server.log_level = "info";
  EXPECT_THAT(RunProgram(config, /*serve=*/true), Not(HasSubstr("learned state")));
  ASSERT_TRUE(std::filesystem::exists(file_));
  EXPECT_THAT(RunProgram(config, /*serve=*/false),
              HasSubstr("learned state is restored: tenant=test"));
  ASSERT_TRUE(ReplaceFile(file_, "nonsense", 0600).ok());
  EXPECT_THAT(RunProgram(config, /*serve=*/false),
              AllOf(HasSubstr("learned state is dropped: tenant=test file=" + file_),
                    HasSubstr("learned state is cut")));
}

TEST_F(LearnedFilesTest, AFolderThatIsNoneKeepsTheDaemonFromStarting) {
  std::ofstream(state_) << "a file";
  for (const std::string& folder : {state_, folder_.path() + "/no/such"}) {
    Config config = ConfigWith();
    config.prefix.state_dir = folder;
    const auto server = Server::Start(config, {});
    ASSERT_FALSE(server.ok());
    EXPECT_THAT(MessageOf(server.status()), HasSubstr("prefix.state_dir=" + folder + " reason="));
  }
}

TEST_F(LearnedFilesTest, SavesFromTimeToTime) {
  StartServer(MakeConfig());
  const auto files = LearnedFiles::Open({state_, {"test"}, std::chrono::milliseconds(1)},
                                        server_->shared_for_test());
  ASSERT_TRUE(files.ok()) << MessageOf(files.status());
  while (!std::filesystem::exists(file_)) {  // the test's own time limit ends it
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(*ReadSmallFile(file_, core::kLearnedBytesMax), Learned());
}

}  // namespace
}  // namespace kvasir::testing
