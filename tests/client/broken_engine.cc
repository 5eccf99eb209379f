// broken_engine NAME: the engine guide's engine with one defect, for kvasir-conformance to find.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/examples/toy_transformer.h"

namespace kvasir::testing {
namespace {

constexpr uint64_t kRowsOfStaleRuns = 32, kOwnWindow = 24;
constexpr unsigned kSecondsOfOrphans = 20;

class BrokenEngine final : public examples::ConformanceEngine {
 public:
  BrokenEngine(ConnectOptions options, examples::ConformanceModel& model, std::string defect)
      : ConformanceEngine(std::move(options), model), defect_(std::move(defect)) {}

  void Attend(const StepView& step, uint32_t layer, uint64_t row, const examples::HeadShape& shape,
              std::span<const float> q, std::span<float> out) {
    LayerView view = step.layers[layer];
    std::vector<KeptRunView> runs(view.kept.begin(), view.kept.end());
    uint64_t until = row;
    std::vector<uint32_t> places(4096);
    std::iota(places.begin(), places.end(), 0);
    if (Is("rotates_keys_by_place")) {
      for (KeptRunView& run : runs) run.positions = places.data();
    }
    if (Is("sees_no_kept_rows")) runs.clear();
    if (Is("keeps_pointers")) runs = StaleRuns(step, layer, runs);
    if (Is("rotates_at_row")) {
      for (KeptRunView& run : runs) {
        run.query_offset = 0;
        run.query_max = UINT64_MAX;
      }
    }
    if (Is("sees_no_sticky_rows")) view.sticky = {};
    if (Is("sees_everything")) view.window = 0;
    if (Is("first_layer_for_all")) view.window = step.layers[0].window;
    if (Is("looks_ahead")) until = step.row + step.count - 1;
    view.kept = runs;
    if (Is("evicts_by_itself") && !full_) view.window = kOwnWindow;
    StepView changed = step;
    if (Is("forgets_decay")) changed.mass_decay = 1;
    AttendUntil(view, changed, row, until, shape, q, out);
    if (Is("computes_otherwise") && shared_) {
      for (float& value : out) value *= 1.02F;
    }
  }

 private:
  bool Is(const char* defect) const { return defect_ == defect; }

  absl::StatusOr<Json> Answer(const Json& request) override {
    const std::string op = request.at("op");
    if (Is("mute") && op == "hello") return Json{{"hello", "yes"}};
    if (Is("forgets_nothing") && op == "truncate") return Json{{"rows", request.at("rows")}};
    absl::StatusOr<Json> answer = ConformanceEngine::Answer(request);
    if (absl::IsUnavailable(answer.status())) {
      if (Is("crashes")) std::abort();
      while (Is("hangs")) ::pause();
    }
    if (Is("hides_errors") && !answer.ok()) {
      return Json{{"rows", 0}, {"next", 0}, {"logits", {1.0}}};
    }
    if (Is("offers_nothing") && answer.ok() && op == "hello") (*answer)["offers"] = Json::array();
    if (Is("forks") && answer.ok() && op == "hello") LeaveAChildBehind();
    return answer;
  }

  absl::StatusOr<Json> Open(const Json& request) override {
    Json changed = request;
    if (Is("asks_for_no_prefix")) changed.erase("prompt");
    if (Is("begins_anew")) changed.erase("snapshot");
    full_ = request.value("retention", "") == "full";
    absl::StatusOr<Json> answer = ConformanceEngine::Open(changed);
    if (Is("recomputes") && answer.ok() && answer->at("rows") > 0) {
      const auto prompt = request.at("prompt").get<std::vector<uint32_t>>();
      const uint64_t rows = answer->at("rows");
      attached_.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(rows));
    }
    return answer;
  }

  absl::StatusOr<Json> Feed(Text& text, std::span<const uint32_t> ids, uint32_t batch) override {
    shared_ = text.sequence.has_value();
    std::vector<uint32_t> all = std::exchange(attached_, {});
    const size_t again = all.size();
    all.insert(all.end(), ids.begin(), ids.end());
    fed_ += ids.size();
    KVASIR_ASSIGN_OR_RETURN(Json answer, ConformanceEngine::Feed(text, all, batch));
    if (again > 0) answer["rows"] = answer.at("rows").get<uint64_t>() - again;
    if (Is("commits_nothing")) answer["rows"] = fed_;
    if (Is("unsteady")) {
      answer["logits"][0] = answer["logits"][0].get<double>() + 0.1 * static_cast<double>(++asked_);
    }
    return answer;
  }

  absl::Status Commit(Text& text, std::span<const uint32_t> ids) override {
    if (Is("commits_nothing")) return absl::OkStatus();
    std::vector<uint32_t> others(ids.begin(), ids.end());
    if (Is("commits_other_ids")) {
      for (uint32_t& id : others) id = (id + 1) % examples::ToyTransformer::kVocabulary;
    }
    KVASIR_RETURN_IF_ERROR(ConformanceEngine::Commit(text, others));
    if (Is("calls_at_every_step") && text.sequence) {
      return text.sequence->MeasureFootprint().status();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Json> Close(uint64_t number) override {
    if (!Is("leaks")) return ConformanceEngine::Close(number);
    leaked_.push_back(std::move(*Find(number)));
    return Json::object();
  }

  // One that has all descriptors, out of reach of who kills the engine.
  static void LeaveAChildBehind() {
    const pid_t child = ::fork();
    if (child == 0) {
      ::setsid();
      ::alarm(kSecondsOfOrphans);
      while (true) ::pause();
    }
    while (::getsid(child) != child) ::usleep(1000);
  }

  // AttendAs(), but for rows behind the query's.
  static void AttendUntil(const LayerView& view, const StepView& step, uint64_t row, uint64_t until,
                          const examples::HeadShape& shape, std::span<const float> q,
                          std::span<float> out) {
    if (until == row) {
      examples::AttendAs(view, step, row, shape, q, out);
      return;
    }
    std::vector<float> turned(q.size());
    examples::OnlineSoftmax softmax(out.size());
    examples::Rotate(q, row, shape.rope_theta, turned);
    const size_t at = size_t{shape.kv_head} * shape.k_dim;
    const uint64_t low = view.WindowFirst(row);
    for (uint64_t p = low; p <= until; ++p) {
      softmax.Add(examples::Dot(turned, reinterpret_cast<const float*>(view.KeyOf(p)) + at) / 4,
                  reinterpret_cast<const float*>(view.ValueOf(p)) + at);
    }
    softmax.Finish(out);
  }

  // The runs as they were when this was last called for another few rows of the text.
  std::vector<KeptRunView> StaleRuns(const StepView& step, uint32_t layer,
                                     const std::vector<KeptRunView>& runs) {
    auto& [row, kept] = stale_[layer];
    if (step.row < row || step.row >= row + kRowsOfStaleRuns) {
      row = step.row;
      kept = runs;
    }
    return kept;
  }

  const std::string defect_;
  std::vector<uint32_t> attached_;
  std::vector<Text> leaked_;
  std::map<uint32_t, std::pair<uint64_t, std::vector<KeptRunView>>> stale_;
  uint64_t fed_ = 0, asked_ = 0;
  bool shared_ = false, full_ = false;
};

}  // namespace
}  // namespace kvasir::testing

int main(int argc, char** argv) {
  using kvasir::testing::BrokenEngine;
  BrokenEngine* broken = nullptr;
  kvasir::examples::ToyModel model(
      [&broken](const kvasir::StepView& step, uint32_t layer, uint64_t row,
                const kvasir::examples::HeadShape& shape, std::span<const float> q,
                std::span<float> out) { broken->Attend(step, layer, row, shape, q, out); });
  BrokenEngine engine(kvasir::examples::OptionsOfEnvironment(), model, argc > 1 ? argv[1] : "");
  broken = &engine;
  engine.Serve(std::cin, std::cout);
  return 0;
}
