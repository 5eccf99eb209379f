#include "bench/scale_engine.h"

#include <chrono>
#include <string>

#include "base/status_macros.h"

namespace kvasir::bench {
namespace {

ModelSpec TinyModel() {
  ModelSpec spec;
  spec.name = "tiny";
  spec.layers.assign(1, LayerSpec{.kv_heads = 1, .k_head_dim = 16, .v_head_dim = 16});
  spec.vocabulary_size = 1000;
  spec.slots_per_block = kScaleSlots;
  spec.weights_digest = std::string(16, 't');
  return spec;
}

}  // namespace

absl::StatusOr<Engine> Connect(const Config::Server& server, bool use_ring) {
  ConnectOptions options;
  options.control_socket = server.control_socket;
  options.data_socket = server.data_socket;
  options.deadline = std::chrono::seconds(60);
  options.use_ring = use_ring;
  Engine engine;
  KVASIR_ASSIGN_OR_RETURN(engine.session, Session::Connect(options));
  KVASIR_ASSIGN_OR_RETURN(engine.model, engine.session->RegisterModel(TinyModel()));
  return engine;
}

absl::StatusOr<Sequence> Open(Engine& engine) {
  OpenOptions open;
  open.model = engine.model;
  open.retention = "full";
  open.max_rows = 4096;
  return engine.session->OpenSequence(open);
}

}  // namespace kvasir::bench
