// Where each layer's rows lie in a block group: the one computation that client and daemon share.
//
// A group holds `slots` slots of all layers of a lane:
//   for each layer of the lane, ascending: K plane [slot][kv_head][k_head_dim], 64-byte aligned,
//                                          V plane [slot][kv_head][v_head_dim], 64-byte aligned
//   trailer, page aligned: u32 pos[position_sets][slots], u32 tok[position_sets][slots],
//                          f32 mass[mass_sets][slots]
// and is a multiple of 4 KiB long. In a group of records a plane is [kv_head][record] instead.
// There is one position set, or one for each column of a lane whose kv heads keep rows of their own
// (kept groups); mass sets only in recent groups of lanes that report attention mass, one for each
// kv head of each layer (retrieval: each query head).
// Values of kept groups may be coded row by row: a V row is then [kv_head][code], and shorter.
#ifndef KVASIR_PROTO_SHM_GROUP_GEOMETRY_H_
#define KVASIR_PROTO_SHM_GROUP_GEOMETRY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"

namespace kvasir::shm {

inline constexpr uint64_t kPlaneAlignment = 64;

struct LayerRowBytes {
  uint32_t k = 0;  // bytes of a K row, all kv heads
  uint32_t v = 0;  // 0: the layer has no V rows
};

// Bytes of one kv head's record of a layer, and how many kv heads there are.
struct LayerRecordBytes {
  uint32_t kv_heads = 0;
  uint32_t k = 0;
  uint32_t v = 0;
};

struct TrailerShape {
  uint32_t position_sets = 1;
  uint32_t mass_sets = 0;
};

struct GroupGeometry {
  uint32_t slots = 0;
  TrailerShape trailer;
  std::vector<uint64_t> k_off, v_off;    // per layer of the lane, in lane order
  std::vector<LayerRowBytes> row_bytes;  // per layer of the lane; groups of records: empty
  uint32_t v_bits = 0;                   // of an element of a coded V row; 0: rows as written
  uint64_t pos_off = 0, tok_off = 0, mass_off = 0;
  uint64_t bytes = 0;
};

// Where planes lie that are `k_bytes` and `v_bytes` long, from `at` on; returns the end.
inline uint64_t AddPlanes(uint64_t at, uint64_t k_bytes, uint64_t v_bytes,
                          GroupGeometry* geometry) {
  geometry->k_off.push_back(at);
  at = RoundUp(at + k_bytes, kPlaneAlignment);
  geometry->v_off.push_back(at);
  return RoundUp(at + v_bytes, kPlaneAlignment);
}

// The trailer behind planes that end at `at`.
inline void AddTrailer(uint64_t at, uint32_t slots, const TrailerShape& trailer,
                       GroupGeometry* geometry_out) {
  GroupGeometry& geometry = *geometry_out;
  geometry.slots = slots;
  geometry.trailer = trailer;
  geometry.pos_off = RoundUp(at, kPageBytes);
  const uint64_t set_bytes = uint64_t{4} * slots;
  geometry.tok_off = geometry.pos_off + set_bytes * trailer.position_sets;
  geometry.mass_off = geometry.tok_off + set_bytes * trailer.position_sets;
  geometry.bytes = RoundUp(geometry.mass_off + set_bytes * trailer.mass_sets, kPageBytes);
}

// REQUIRES: bounds of ModelSpec hold, so that nothing overflows 64 bits.
inline GroupGeometry MakeGroupGeometry(std::span<const LayerRowBytes> layers, uint32_t slots,
                                       const TrailerShape& trailer = {}) {
  GroupGeometry geometry;
  geometry.row_bytes.assign(layers.begin(), layers.end());
  uint64_t at = 0;
  for (const LayerRowBytes& layer : layers) {
    at = AddPlanes(at, uint64_t{layer.k} * slots, uint64_t{layer.v} * slots, &geometry);
  }
  AddTrailer(at, slots, trailer, &geometry);
  return geometry;
}

// A group of records of `rows` slots each. REQUIRES: as above; records are below 2^32 bytes.
inline GroupGeometry MakeRecordGeometry(std::span<const LayerRecordBytes> layers, uint32_t rows) {
  GroupGeometry geometry;
  uint64_t at = 0;
  for (const LayerRecordBytes& layer : layers) {
    at = AddPlanes(at, uint64_t{layer.k} * layer.kv_heads, uint64_t{layer.v} * layer.kv_heads,
                   &geometry);
  }
  AddTrailer(at, rows, {}, &geometry);
  return geometry;
}

// Slots of a block when the model spec does not say: the largest of 16, 32, 64, 128 whose group of
// all layers is at most 2 MiB, else 16. `token_bytes`: K and V of one token over all layers.
inline uint32_t DefaultSlotsPerBlock(uint64_t token_bytes) {
  for (const uint32_t slots : {128U, 64U, 32U}) {
    if (token_bytes * slots <= 2 * kMiB) return slots;
  }
  return 16;
}

// Kept rows that do not fill a block lie in groups of this many slots.
inline uint32_t SmallGroupSlots(uint32_t slots_per_block) { return slots_per_block / 8; }

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_GROUP_GEOMETRY_H_
