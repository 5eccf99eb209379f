// ModelSpec: what an engine tells the daemon about its model. Plain values; bounds are in
// proto/kvasir/v1/types.proto.
#ifndef KVASIR_CLIENT_MODEL_SPEC_H_
#define KVASIR_CLIENT_MODEL_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

namespace kvasir {

// Element type of K and V rows. kF8E4M3: OCP's fp8, up to 448, no infinity; an engine that has a
// scale beside its rows multiplies queries and outputs by it, and the daemon need not know.
enum class KvType { kF16, kBF16, kF32, kF8E4M3 };
constexpr uint32_t ElementBytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF8E4M3 ? 1 : 2;
}
enum class RopeStyle { kNone, kInterleaved, kHalfSplit };

// One layer. Layers may differ in everything, as in pruned, hybrid and MLA models.
struct LayerSpec {
  uint32_t kv_heads = 0;
  uint32_t k_head_dim = 0;      // elements
  uint32_t v_head_dim = 0;      // elements; 0: no V rows (MLA)
  uint32_t sliding_window = 0;  // rows; 0: full attention
  uint32_t query_heads = 0;     // a multiple of kv_heads; needed by snapkv and infllm
};

struct ModelSpec {
  std::string name;  // for people
  KvType kv_type = KvType::kF16;
  std::vector<LayerSpec> layers;
  RopeStyle rope = RopeStyle::kNone;  // needed for positions=in_cache only
  double rope_theta = 10000.0;
  uint32_t rope_dims = 0;                     // rotated elements of a key
  std::vector<uint32_t> separator_token_ids;  // default separators of SepLLM
  uint32_t vocabulary_size = 0;
  uint32_t slots_per_block = 0;  // 0: the daemon chooses
  std::string weights_digest;    // 16 to 64 bytes, see DigestFile()
  std::vector<std::string> adapter_digests;
  // Rows of prefill in a second; 0: unknown. A prefix that would take longer to read back from a
  // disk or another host is then not offered.
  double prefill_rows_per_s = 0;
  // In whose memory its rows lie: the name of a [[gpu]] of the daemon's; "": in host memory. Needs
  // ConnectOptions::devices.
  std::string pool;
};

// BLAKE2b-256 of a file's bytes: the weights digest of a model in one file.
// Errors: kNotFound, kInternal. Cost: one pass over the file, about 1 s a GiB.
absl::StatusOr<std::string> DigestFile(const std::string& path);

}  // namespace kvasir

#endif  // KVASIR_CLIENT_MODEL_SPEC_H_
