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
                                                     const Tokenizer& tokenizer,
                                                     const KvStoreOptions& options) {
  if (!options.private_memory) {
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvasirKvStore> store,
                            KvasirKvStore::Create(model, tokenizer, options.kvasir));
    return std::unique_ptr<KvStore>(std::move(store));
  }
  if (!options.kvasir.retention.empty() && options.kvasir.retention != "full") {
    return InvalidArgument("private memory keeps everything: retention={} expected=full",
                           options.kvasir.retention);
  }
  KVASIR_ASSIGN_OR_RETURN(
      std::unique_ptr<PrivateKvStore> store,
      PrivateKvStore::Create(
          GeometryOf(model.parameters(), options.kvasir.kv_type, kPrivateSlotsPerBlock),
          options.rows_max));
  return std::unique_ptr<KvStore>(std::move(store));
}

}  // namespace kvasir::engine
