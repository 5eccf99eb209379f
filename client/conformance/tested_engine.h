// TestedEngine: a process of the engine under test, spoken to by the lines of
// docs/engine_guide.md.
#ifndef KVASIR_CLIENT_CONFORMANCE_TESTED_ENGINE_H_
#define KVASIR_CLIENT_CONFORMANCE_TESTED_ENGINE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/conformance/process.h"

#include <nlohmann/json.hpp>

namespace kvasir::conformance {

using Ids = std::vector<uint32_t>;

// What an engine says of itself.
struct EngineFacts {
  std::string name;
  uint32_t layers = 0;
  uint32_t vocabulary = 0;
  uint32_t slots_per_block = 0;
  std::set<std::string> offers;
};

struct FeedAnswer {
  uint64_t rows = 0;  // of the text
  uint32_t next = 0;
  std::vector<double> logits;  // of the last row: all, or the same ones each time
};

struct OpenRequest {
  std::string retention = "full";
  Ids prompt = {};            // empty: no prefix
  std::string snapshot = {};  // of Save()
  bool private_memory = false;
};

// Not thread-safe. Errors of its calls: an engine that answers with an error gives that one, whose
// code is kUnknown where it names none of absl's; one that does not answer, ends or answers
// something else is kInternal: that is never right.
class TestedEngine {
 public:
  // Runs `command` by the shell. Errors: what the system says.
  static absl::StatusOr<std::unique_ptr<TestedEngine>> Start(const std::string& command,
                                                             std::vector<std::string> environment,
                                                             const std::string& log,
                                                             Milliseconds deadline,
                                                             Milliseconds patience);

  absl::StatusOr<EngineFacts> Hello();
  // Opens text `text`; returns the rows that are there already.
  absl::StatusOr<uint64_t> Open(uint64_t text, const OpenRequest& request);
  // Rows of at most `batch` a step.
  absl::StatusOr<FeedAnswer> Feed(uint64_t text, std::span<const uint32_t> ids, uint32_t batch);
  absl::StatusOr<uint64_t> Truncate(uint64_t text, uint64_t rows);
  absl::StatusOr<uint64_t> Publish(uint64_t text);
  absl::StatusOr<std::string> Save(uint64_t text);
  absl::Status Close(uint64_t text);

  // A feed whose answer nobody waits for.
  absl::Status FeedAndLeave(uint64_t text, std::span<const uint32_t> ids, uint32_t batch);

  // Kills it and waits for its end.
  void Kill();
  // Ends its standard input. Errors: kInternal where it does not end by exit status 0.
  absl::Status End();

  Process& process() { return process_; }

 private:
  using Json = nlohmann::ordered_json;
  TestedEngine(Process process, std::string log, Milliseconds patience)
      : process_(std::move(process)), log_(std::move(log)), patience_(patience) {}

  absl::StatusOr<Json> Ask(const Json& request);
  absl::StatusOr<uint64_t> AskRows(const Json& request);
  absl::Status Broken(const std::string& what, const std::string& op);

  Process process_;
  const std::string log_;
  const Milliseconds patience_;
};

}  // namespace kvasir::conformance

#endif  // KVASIR_CLIENT_CONFORMANCE_TESTED_ENGINE_H_
