#include "kernels/encoding/tm_record.h"

#include <cmath>

#include "base/error.h"
#include "kernels/encoding/tm_format.h"

namespace kvasir::kernels::tm {
namespace {

// A scale is a half that is finite and not negative; zero has no sign.
absl::Status CheckHalf(const std::byte* record, size_t at, const char* name) {
  const float value = LoadHalf(record + at);
  if (!std::isfinite(value) || std::signbit(value)) {
    return DataLoss("{} of a token-mixed record out of bounds: {}={} min=0 max=65504", name, name,
                    value);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t Bytes(const RecordShape& shape) {
  return PlanesAt(shape) + uint64_t{shape.code_planes} * (shape.rows / 8);
}

absl::Status Check(const RecordShape& shape, const std::byte* record) {
  if (absl::Status status = CheckHalf(record, 0, "scale"); !status.ok()) {
    return status;
  }
  if (shape.plane == RecordPlane::kKey) {
    if (absl::Status status = CheckHalf(record, kMeanScaleAt, "mean_scale"); !status.ok()) {
      return status;
    }
  } else if (record[kMeanScaleAt] != std::byte{0} || record[kMeanScaleAt + 1] != std::byte{0}) {
    return DataLoss("reserved bytes of a token-mixed record not zero: byte2={} byte3={}",
                    std::to_integer<uint32_t>(record[kMeanScaleAt]),
                    std::to_integer<uint32_t>(record[kMeanScaleAt + 1]));
  }
  const Channels channels(shape, record);
  for (uint32_t c = 0; c < shape.dims && channels.too_many; ++c) {
    if (channels.planes[c] > kCodePlanesMax) {
      return DataLoss("planes of a channel out of bounds: channel={} planes={} max={}", c,
                      uint32_t{channels.planes[c]}, kCodePlanesMax);
    }
  }
  if (channels.total != shape.code_planes) {
    return DataLoss("planes of a token-mixed record do not add up: planes={} expected={}",
                    channels.total, shape.code_planes);
  }
  return absl::OkStatus();
}

}  // namespace kvasir::kernels::tm
