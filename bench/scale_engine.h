// The engines of bench_scale: sessions with a tiny model.
#ifndef KVASIR_BENCH_SCALE_ENGINE_H_
#define KVASIR_BENCH_SCALE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include <absl/status/statusor.h>

#include "client/session.h"
#include "daemon/config.h"

namespace kvasir::bench {

inline constexpr uint32_t kScaleSlots = 16;  // of a block

struct Engine {
  std::unique_ptr<Session> session;
  ModelHandle model;
  std::vector<Sequence> sequences;
};

// Connects and registers the model. Errors: those of Session.
absl::StatusOr<Engine> Connect(const Config::Server& server, bool use_ring);
// A sequence that keeps every row.
absl::StatusOr<Sequence> Open(Engine& engine);

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_SCALE_ENGINE_H_
