// Where an engine's reports lie in a report group: what score-based policies need beyond the rows.
//
// A report group belongs to one lane of one sequence for its whole life; the engine writes it, the
// daemon copies out of it and judges the copy. A multiple of 4 KiB long:
//   f32 mass[mass_sets][kept_rows_max]     of the kept rows of the table in use, in cache order
//   for each layer of the lane, ascending: f32 query[query_rows][query_floats of the layer]
// The mass of recent rows lies in their groups' trailers.
#ifndef KVASIR_PROTO_SHM_REPORT_GEOMETRY_H_
#define KVASIR_PROTO_SHM_REPORT_GEOMETRY_H_

#include <cstdint>
#include <vector>

#include "base/bytes.h"

namespace kvasir::shm {

struct ReportShape {
  uint32_t mass_sets = 0;  // kv heads (retrieval: query heads) of all layers; 0: no mass
  uint64_t kept_rows_max = 0;
  uint32_t query_rows = 0;
  std::vector<uint32_t> query_floats;  // per layer of the lane: of one row
};

struct ReportGeometry {
  ReportShape shape;
  std::vector<uint64_t> query_off;  // per layer of the lane
  uint64_t bytes = 0;               // 0: nothing is reported

  // Of kept row 0; the mass lies at the start.
  uint64_t MassOffset(uint32_t set) const { return uint64_t{4} * set * shape.kept_rows_max; }
};

// REQUIRES: bounds of ModelSpec hold, kept_rows_max and query_rows are below 2^32.
inline ReportGeometry MakeReportGeometry(const ReportShape& shape) {
  ReportGeometry geometry;
  geometry.shape = shape;
  uint64_t at = uint64_t{4} * shape.mass_sets * shape.kept_rows_max;
  for (const uint32_t floats : shape.query_floats) {
    geometry.query_off.push_back(at);
    at += uint64_t{4} * floats * shape.query_rows;
  }
  geometry.bytes = RoundUp(at, kPageBytes);
  return geometry;
}

}  // namespace kvasir::shm

#endif  // KVASIR_PROTO_SHM_REPORT_GEOMETRY_H_
