// What tests of tiers share: a kvasird process with its Admin service, and an engine whose rows
// say which prompt they are of.
#ifndef KVASIR_TESTS_SUPPORT_TIER_DAEMON_H_
#define KVASIR_TESTS_SUPPORT_TIER_DAEMON_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/session.h"
#include "daemon/config.h"
#include "kvasir/v1/admin.pb.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/daemon_process.h"

namespace kvasir::testing {

// A prompt of `rows` tokens of TinySpec()'s vocabulary; other seeds make others from row 0 on.
std::vector<uint32_t> PromptOf(uint64_t seed, size_t rows);

// A session with one model. The bytes of a row follow from all tokens up to it, as keys and values
// do, so that rows of another prompt, layer or place are never taken for right ones. Not
// thread-safe; several at once are fine.
class TierEngine {
 public:
  // `deadline`: of its calls. Errors: Session::Connect()'s and RegisterModel()'s.
  static absl::StatusOr<TierEngine> Connect(
      const Config& config, const ModelSpec& spec,
      std::chrono::milliseconds deadline = std::chrono::seconds(30));

  // Of the sequences from now on; "full" at first. Positions and rows as written.
  void set_retention(std::string retention) { retention_ = std::move(retention); }

  // Opens a sequence on the prompt and checks every row that it finds, with `full` that all are
  // there. Errors: the session's; kDataLoss naming the first row that is not as Publish() wrote it.
  absl::StatusOr<Sequence> Attach(const std::vector<uint32_t>& tokens);
  // The rows that Attach() finds.
  absl::StatusOr<uint64_t> AttachedRows(const std::vector<uint32_t>& tokens);
  // Attach(), writes the rows that are missing, saves the sequence. Returns the snapshot's id.
  absl::StatusOr<std::string> Save(const std::vector<uint32_t>& tokens);
  // Goes on from a snapshot of these tokens and checks every row that it finds; how many they are.
  absl::StatusOr<uint64_t> ResumedRows(const std::string& snapshot,
                                       const std::vector<uint32_t>& tokens);
  // Attach(), writes the rows that are missing, publishes.
  absl::Status Publish(const std::vector<uint32_t>& tokens);

 private:
  // The rows below rows() are right.
  absl::Status Check(Sequence& sequence, const std::vector<uint32_t>& tokens) const;
  // Attach(), and the rows that are missing.
  absl::StatusOr<Sequence> Written(const std::vector<uint32_t>& tokens);

  TierEngine(std::unique_ptr<Session> session, ModelHandle model, const ModelSpec& spec)
      : session_(std::move(session)), model_(std::move(model)), spec_(spec) {}

  std::unique_ptr<Session> session_;
  ModelHandle model_;
  ModelSpec spec_;
  std::string retention_ = "full";
};

// A daemon that is started many times with one configuration or another. Not thread-safe, but
// Drain() may be called by another thread. Failed calls are failures of the test.
class TierDaemon {
 public:
  // `folder` is for the daemon's files and outlives it; `config` has its sockets there.
  TierDaemon(std::string folder, Config config)
      : process_(std::move(folder)), config_(std::move(config)) {}

  // Of the next Start().
  Config& config() { return config_; }
  // Descriptors of the daemon are kept over its lives from now on.
  FdKeeper& KeepDescriptors() { return process_.KeepDescriptors(); }
  const Config::Server& server() const { return config_.server; }
  void set_environment(std::vector<std::string> environment) {
    process_.set_environment(std::move(environment));
  }

  // Starts it; false, and a failure with what it said, when it does not come up.
  bool Start();
  // Starts what must not come up. Returns what it says.
  std::string StartAndFail();
  // SIGTERM, and waits for a clean end. Returns what it said in its life.
  std::string Stop();
  void Kill();  // SIGKILL

  absl::StatusOr<TierEngine> Connect(
      uint32_t layers = 2, std::chrono::milliseconds deadline = std::chrono::seconds(30)) const;
  absl::Status Drain() const;
  // The only tier. REQUIRES: the daemon has one.
  v1::TierInfo Tier() const;
  // Forgets every prefix, in memory and tiers.
  void Drop() const;
  // Prefixes listed in the place.
  size_t PrefixesIn(const std::string& place) const;
  v1::GetStatsResponse Stats() const;
  // Drops every prefix, and waits until memory and disk are as they were before anybody came:
  // nothing held, nothing charged. REQUIRES: no session is left but such that are on their way out.
  void ExpectNothingLeft() const;

 private:
  DaemonProcess process_;
  Config config_;
};

// DaemonFixture without a server in this process: MakeConfig() and a folder.
class TierDaemonTest : public DaemonFixture {
 protected:
  void SetUp() override {}
  void TearDown() override {}

  // Without a tier; administrators are this process's user.
  Config PlainConfig() const;
  // With 64 MiB of disk in the folder.
  Config DiskConfig() const;
  std::string disk_path() const { return folder_.path() + "/tier"; }
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_TIER_DAEMON_H_
