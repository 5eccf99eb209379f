// What a check is, and what it works with: an engine's processes, each check with a daemon of its
// own.
#ifndef KVASIR_CLIENT_CONFORMANCE_CHECK_H_
#define KVASIR_CLIENT_CONFORMANCE_CHECK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/conformance/own_daemon.h"
#include "client/conformance/tested_engine.h"

namespace kvasir::conformance {

struct Settings {
  std::string engine;  // command line, run by the shell
  std::string daemon;  // path of kvasird
  // Of two logits that should agree, of the largest one's size: rows of f16 that are rounded at
  // other places differ by 1e-3, one missing row by ten times that.
  double tolerance = 5e-3;
  Milliseconds deadline{5000};  // that the engine is told to give its calls
  // For an answer, a daemon's start, or memory to come back; nothing is judged by how long it
  // takes.
  Milliseconds patience{60'000};
  uint64_t pool_bytes = uint64_t{1} << 30;
  std::string device = {};  // whose pool rows lie in; "": in host memory
};

// The daemon of one check and the processes of the engine on it. Not thread-safe.
class Stand {
 public:
  Stand(const Settings& settings, std::optional<EngineFacts> facts)
      : settings_(settings), facts_(std::move(facts)) {}

  const Settings& settings() const { return settings_; }
  // Of the engine's first hello. REQUIRES: there was one.
  const EngineFacts& facts() const { return *facts_; }
  bool OnDevice() const { return !settings_.device.empty(); }
  bool Offers(const std::string& what) const { return facts_ && facts_->offers.contains(what); }

  // Begins anew, with another daemon and no engine. Errors: as OwnDaemon::Start().
  absl::Status StartDaemon(uint64_t limit_bytes = 0, uint64_t extent_bytes = 0);
  OwnDaemon& daemon() { return *daemon_; }  // REQUIRES: StartDaemon()
  // One more process, that has said hello. Errors: its own.
  absl::StatusOr<std::unique_ptr<TestedEngine>> NewEngine();

  // `count` ids that follow from `seed` alone, none of `without`.
  Ids MakeIds(size_t count, uint64_t seed, const Ids& without = {}) const;
  // Opens text `number` and feeds `ids`, `batch` rows a step. Errors: the engine's.
  absl::StatusOr<FeedAnswer> Run(TestedEngine& engine, uint64_t number, const OpenRequest& request,
                                 std::span<const uint32_t> ids, uint32_t batch) const;
  // An error where the answers differ by more than the tolerance. `what`: "after 7 rows a step".
  absl::Status Same(const FeedAnswer& wanted, const FeedAnswer& got, const std::string& what) const;

 private:
  const Settings settings_;
  std::optional<EngineFacts> facts_;
  std::unique_ptr<OwnDaemon> daemon_;
};

// Largest difference of two logits, of the size of the largest one; 1 where their counts differ.
double Difference(const FeedAnswer& a, const FeedAnswer& b);

// kUnimplemented: what the check needs is not offered.
absl::Status NotOffered(const std::string& what);
// Likewise: the daemon has no such thing where rows lie on a device.
absl::Status NotOnADevice(const std::string& what);

// One row of the conformance suite.
struct Check {
  const char* name;
  const char* title;    // what holds where it is ok
  const char* section;  // of docs/engine_guide.md
  // What was looked at, for people. Errors: kUnimplemented: not offered; any other: it failed.
  absl::StatusOr<std::string> (*run)(Stand& stand);
};

// In the order in which an engine grows.
std::span<const Check> AllChecks();

// first_checks.cc
absl::StatusOr<std::string> CheckHello(Stand& stand);
absl::StatusOr<std::string> CheckRows(Stand& stand);
absl::StatusOr<std::string> CheckRepeat(Stand& stand);
absl::StatusOr<std::string> CheckMemory(Stand& stand);
absl::StatusOr<std::string> CheckBatches(Stand& stand);
absl::StatusOr<std::string> CheckDecode(Stand& stand);
// view_checks.cc
absl::StatusOr<std::string> CheckKept(Stand& stand);
absl::StatusOr<std::string> CheckWindow(Stand& stand);
absl::StatusOr<std::string> CheckSticky(Stand& stand);
absl::StatusOr<std::string> CheckLayers(Stand& stand);
absl::StatusOr<std::string> CheckCovering(Stand& stand);
absl::StatusOr<std::string> CheckPositions(Stand& stand);
absl::StatusOr<std::string> CheckUnrotated(Stand& stand);
absl::StatusOr<std::string> CheckMass(Stand& stand);
// text_checks.cc
absl::StatusOr<std::string> CheckTruncate(Stand& stand);
absl::StatusOr<std::string> CheckPrefix(Stand& stand);
absl::StatusOr<std::string> CheckSnapshot(Stand& stand);
// life_checks.cc
absl::StatusOr<std::string> CheckLimit(Stand& stand);
absl::StatusOr<std::string> CheckEnd(Stand& stand);
absl::StatusOr<std::string> CheckKill(Stand& stand);
absl::StatusOr<std::string> CheckDaemon(Stand& stand);

}  // namespace kvasir::conformance

#endif  // KVASIR_CLIENT_CONFORMANCE_CHECK_H_
