// Manifests of stored prefixes and saved sequences: any bytes under a right seal are refused, or
// name a prefix; any state under a right checksum is refused, or asks for groups that there can be.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "allocator/group_allocator.h"
#include "base/error.h"
#include "daemon/core/snapshot_state.h"
#include "daemon/core/snapshot_state_format.h"
#include "daemon/store/prefix_manifest.h"
#include "policies/policy_registry.h"

namespace {

using kvasir::core::WantedGroup;

class NoMemory : public kvasir::ExtentSource {
 public:
  absl::StatusOr<std::unique_ptr<kvasir::Extent>> TakeExtent(uint64_t /*bytes*/,
                                                             kvasir::ExtentUse /*use*/) override {
    return kvasir::ResourceExhausted("no memory");
  }
  void ReturnExtent(std::unique_ptr<kvasir::Extent> /*extent*/) override {}
  bool MakeRoom() override { return false; }
};

// No memory is there: what comes so far has passed every check but those of memory.
kvasir::core::GroupSupply Nothing() {
  static NoMemory source;
  static kvasir::GroupAllocator allocator({4096, kvasir::ExtentUse::kKept, 4096, 4096}, source);
  kvasir::core::GroupSupply supply;
  supply.kept = [](WantedGroup wanted) -> absl::StatusOr<std::shared_ptr<kvasir::core::KeptGroup>> {
    const uint64_t columns = wanted.geometry->trailer.position_sets;
    if (wanted.slots.empty() || wanted.slots.size() > columns * wanted.geometry->slots) {
      std::abort();
    }
    return kvasir::ResourceExhausted("no memory");
  };
  supply.recent_allocator = [](uint64_t) -> kvasir::GroupAllocator& { return allocator; };
  supply.recent = [](uint32_t, size_t, uint64_t, kvasir::core::BlockList* into)
      -> absl::StatusOr<std::optional<kvasir::core::GroupDigest>> { return into->Add(); };
  return supply;
}

}  // namespace

// A PrefixManifest whose state is a body, without its envelope.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvasir::ChainHasher::Secret secret{};
  secret.fill(7);
  const std::string manifest(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<kvasir::core::StoredPrefix> prefix =
      kvasir::DecodeManifest(kvasir::SealManifest(manifest, secret), secret);
  if (!prefix.ok() || prefix->state.empty()) return 0;
  const absl::StatusOr<kvasir::core::Model> model =
      kvasir::core::Model::Create(prefix->facts.model);
  if (!model.ok()) std::abort();  // it was decoded with it
  kvasir::PolicyContext context;
  context.layers = model->layers();
  context.separators = model->description().separators;
  context.prompt_rows = prefix->facts.prefill_rows;
  absl::StatusOr<kvasir::PolicyLanes> lanes = kvasir::MakeLanes(prefix->facts.retention, context);
  if (!lanes.ok()) return 0;
  const std::string state =
      kvasir::SealState(kvasir::core::kSnapshotState, prefix->facts.retention, prefix->state);
  (void)kvasir::core::RestoreSnapshot(*model, prefix->facts, *std::move(lanes), nullptr, state,
                                      nullptr, Nothing());
  return 0;
}
