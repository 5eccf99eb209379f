// kvasir-minimal-engine: the smallest program that does everything an engine does. It connects,
// registers a toy model, streams rows through a sequence, attends over what its policy keeps, and
// says what it did. The "model" is arithmetic on row numbers; the memory is real.
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/examples/attention_loop.h"
#include "client/session.h"

#include <CLI/CLI.hpp>

namespace kvasir::examples {
namespace {

constexpr uint32_t kLayers = 2, kKvHeads = 2, kHeadDim = 16, kVocabulary = 64;
constexpr uint32_t kSeparatorIds[] = {1, 2};

struct Options {
  ConnectOptions connect;
  std::string retention = "sepllm:form=static,init_cache_size=4,local_size=64";
  uint64_t rows = 500;
  uint32_t batch = 16;
};

ModelSpec ToySpec() {
  ModelSpec spec;
  spec.name = "toy";
  spec.kv_type = KvType::kF32;
  spec.layers.assign(kLayers, LayerSpec{kKvHeads, kHeadDim, kHeadDim, 0});
  spec.rope = RopeStyle::kInterleaved;
  spec.rope_dims = kHeadDim;
  spec.separator_token_ids.assign(std::begin(kSeparatorIds), std::end(kSeparatorIds));
  spec.vocabulary_size = kVocabulary;
  spec.slots_per_block = 16;
  spec.weights_digest = "a toy has no weights, but a digest";
  return spec;
}

// What the projections of a real model would compute for one head: plane 0 K, 1 V, 2 Q.
std::vector<float> ProjectHead(uint64_t row, uint32_t layer, uint32_t head, uint32_t plane) {
  std::mt19937_64 random((row * 64 + layer) * 64 + head * 4 + plane);
  std::vector<float> values(kHeadDim);
  for (float& value : values) value = static_cast<float>(random() % 2000) / 1000.0F - 1.0F;
  return values;
}

// K rotated at its row number, V as it is: into the slots of the row.
void WriteRow(const LayerView& view, uint64_t row, uint32_t layer, double theta) {
  auto* key = reinterpret_cast<float*>(view.KeyOf(row));
  auto* value = reinterpret_cast<float*>(view.ValueOf(row));
  for (uint32_t head = 0; head < kKvHeads; ++head) {
    Rotate(ProjectHead(row, layer, head, 0), row, theta,
           std::span(key + size_t{head} * kHeadDim, kHeadDim));
    const std::vector<float> v = ProjectHead(row, layer, head, 1);
    std::copy(v.begin(), v.end(), value + size_t{head} * kHeadDim);
  }
}

// Every layer of the step's rows; returns a sum of the outputs, so that nothing is computed in
// vain.
double Compute(const StepView& step, double theta) {
  double sum = 0;
  std::vector<float> out(kHeadDim);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    const LayerView& view = step.layers[layer];
    for (uint64_t row = step.row; row < step.row + step.count; ++row) {
      WriteRow(view, row, layer, theta);
      for (uint32_t head = 0; head < kKvHeads; ++head) {
        AttendHead(view, row, {head, kHeadDim, kHeadDim, theta}, ProjectHead(row, layer, head, 2),
                   out);
        for (const float value : out) sum += value;
      }
    }
  }
  return sum;
}

absl::Status Stream(const Options& options) {
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                          Session::Connect(options.connect));
  const ModelSpec spec = ToySpec();
  KVASIR_ASSIGN_OR_RETURN(const ModelHandle model, session->RegisterModel(spec));
  KVASIR_ASSIGN_OR_RETURN(Sequence sequence,
                          session->OpenSequence({model, options.retention, 0, "minimal engine"}));
  std::cout << "session " << session->id() << ", sequence " << sequence.id() << ", retention "
            << sequence.retention() << ", " << model.slots_per_block << " slots a block\n";
  std::mt19937 random(1);
  double sum = 0;
  uint64_t steps = 0, short_steps = 0;
  while (sequence.rows() < options.rows) {
    const auto want =
        static_cast<uint32_t>(std::min<uint64_t>(options.batch, options.rows - sequence.rows()));
    KVASIR_ASSIGN_OR_RETURN(const StepView step, sequence.Begin(want));
    sum += Compute(step, spec.rope_theta);
    std::vector<uint32_t> ids(step.count);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % kVocabulary);
    KVASIR_RETURN_IF_ERROR(sequence.Commit(ids));
    ++steps;
    short_steps += step.count < want ? 1 : 0;
  }
  KVASIR_ASSIGN_OR_RETURN(const Sequence::Footprint footprint, sequence.MeasureFootprint());
  std::cout << sequence.rows() << " rows in " << steps << " steps (" << short_steps
            << " cut at a table border), " << footprint.kept_rows << " visible, "
            << footprint.held_bytes << " bytes held, table version " << footprint.version
            << ", sum of outputs " << sum << "\n";
  return sequence.Close();
}

}  // namespace
}  // namespace kvasir::examples

int main(int argc, char** argv) {
  kvasir::examples::Options options;
  CLI::App app{"The smallest engine on Kvasir: streams made-up rows through one sequence"};
  app.add_option("--control-socket", options.connect.control_socket, "gRPC socket of kvasird");
  app.add_option("--data-socket", options.connect.data_socket, "Data socket of kvasird");
  app.add_option("--retention", options.retention, "Policy, as kvasirctl policies lists them");
  app.add_option("--rows", options.rows, "Rows to stream")->check(CLI::Range(1, 1 << 24));
  app.add_option("--batch", options.batch, "Rows of a step")->check(CLI::Range(1, 1 << 16));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = kvasir::examples::Stream(options);
  if (status.ok()) return 0;
  std::cerr << "kvasir-minimal-engine: " << kvasir::MessageOf(status) << '\n';
  return 1;
}
