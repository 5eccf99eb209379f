// ConformanceEngine: an engine behind the lines that kvasir-conformance speaks
// (docs/engine_guide.md). An engine in C++ brings a ConformanceModel; one in another language has
// this to copy.
#ifndef KVASIR_CLIENT_EXAMPLES_CONFORMANCE_ENGINE_H_
#define KVASIR_CLIENT_EXAMPLES_CONFORMANCE_ENGINE_H_

#include <cstdint>
#include <iosfwd>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/session.h"

#include <nlohmann/json.hpp>

namespace kvasir::examples {

// Rows of one text in this process's own memory, all of them visible: what the daemon's memory is
// compared with. Not thread-safe.
class PrivateRows {
 public:
  virtual ~PrivateRows() = default;
  virtual absl::StatusOr<StepView> Begin(uint32_t want) = 0;
  virtual absl::Status Commit(std::span<const uint32_t> ids) = 0;
  virtual uint64_t rows() const = 0;
};

// What an engine is asked for. Not thread-safe.
class ConformanceModel {
 public:
  virtual ~ConformanceModel() = default;
  virtual std::string name() const = 0;
  virtual absl::StatusOr<ModelSpec> Spec() = 0;
  // What it offers beyond what sequences give: "in_cache", "unrotated", "mass".
  virtual std::vector<std::string> Offers() const { return {}; }
  // Computes the rows of the step, one an id: keys and values into the step's slots. The logits of
  // the last one. REQUIRES: ids.size() == step.count, each id in the vocabulary.
  virtual absl::StatusOr<std::vector<float>> Compute(const StepView& step,
                                                     std::span<const uint32_t> ids) = 0;
  // Null: it has no memory of its own.
  virtual absl::StatusOr<std::unique_ptr<PrivateRows>> NewPrivateRows() { return nullptr; }
};

// Not thread-safe. What is virtual is there for tests, which break it.
class ConformanceEngine {
 public:
  // `model` must outlive it.
  ConformanceEngine(ConnectOptions options, ConformanceModel& model)
      : options_(std::move(options)), model_(model) {}
  virtual ~ConformanceEngine() = default;

  // Answers each line of `in` by one of `out`, until `in` ends.
  void Serve(std::istream& in, std::ostream& out);

 protected:
  using Json = nlohmann::ordered_json;
  struct Text {
    std::optional<Sequence> sequence;  // in the daemon's memory
    std::unique_ptr<PrivateRows> own;  // else
  };

  virtual absl::StatusOr<Json> Answer(const Json& request);
  virtual absl::StatusOr<Json> Open(const Json& request);
  virtual absl::StatusOr<Json> Feed(Text& text, std::span<const uint32_t> ids, uint32_t batch);
  virtual absl::Status Commit(Text& text, std::span<const uint32_t> ids);
  virtual absl::StatusOr<Json> Close(uint64_t number);

  Text* Find(uint64_t number);  // null: no such text is open

 private:
  absl::StatusOr<Json> Hello();
  absl::Status Connect();
  absl::StatusOr<Json> AnswerAbout(Text& text, const std::string& op, const Json& request);
  absl::StatusOr<StepView> Begin(Text& text, uint32_t want);

  const ConnectOptions options_;
  ConformanceModel& model_;
  ModelSpec spec_;
  std::unique_ptr<Session> session_;  // null: none yet, or the daemon has ended it
  ModelHandle handle_;
  std::map<uint64_t, Text> texts_;
};

// KVASIR_CONTROL_SOCKET, KVASIR_DATA_SOCKET and KVASIR_DEADLINE_MS, as far as they are set.
ConnectOptions OptionsOfEnvironment();

}  // namespace kvasir::examples

#endif  // KVASIR_CLIENT_EXAMPLES_CONFORMANCE_ENGINE_H_
