#include "engine/make_kv_store.h"

#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/llama_engine.h"
#include "engine/private_kv_store.h"

namespace kvasir::engine {
namespace {

constexpr uint32_t kPrivateSlotsPerBlock = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<KvStore>> MakeKvStore(const GgufModel& model,
                                                     const KvStoreOptions& options) {
  if (!options.private_memory) {
    return Unavailable("no connection to a daemon in this program: want --private");
  }
  if (options.retention != "full") {
    return InvalidArgument("private memory keeps everything: retention={} expected=full",
                           options.retention);
  }
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<PrivateKvStore> store,
      PrivateKvStore::Create(GeometryOf(model.parameters(), options.kv_type, kPrivateSlotsPerBlock),
                             options.rows_max));
  return std::unique_ptr<KvStore>(std::move(store));
}

}  // namespace kvasir::engine
