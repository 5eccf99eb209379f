// Records of the token-mixed code: any bytes are refused or read, and nothing behind them is.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels/encoding/tm_record.h"

// Three bytes choose the shape; the record is what follows, cut or filled with zeros to its size.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir::kernels;
  namespace tm = kvasir::kernels::tm;  // and not struct tm of <ctime>
  if (size < 3) {
    return 0;
  }
  RecordShape shape;
  shape.codec = Codec::kTokenMixed;
  shape.plane = (data[0] & 1U) != 0 ? RecordPlane::kValue : RecordPlane::kKey;
  shape.rows = (data[0] & 2U) != 0 ? 32 : 64;
  shape.dims = (data[1] % 32U + 1) * 8;
  shape.code_planes = shape.dims / 2 + data[2] * (shape.dims * 11 / 2) / 255;
  std::vector<std::byte> record(tm::Bytes(shape));
  std::memcpy(record.data(), data + 3, std::min(size - 3, record.size()));
  const bool valid = tm::Check(shape, record.data()).ok();
  constexpr uint32_t kQueries = 2;
  std::vector<float> given(size_t{kQueries} * kRecordDimsMax, 1.0F);
  std::vector<float> got(size_t{kQueries} * kRecordDimsMax, 0.0F);
  std::vector<float> rows(size_t{shape.rows} * shape.dims);
  if (shape.plane == RecordPlane::kKey) {
    tm::Scores(shape, record.data(), given.data(), kQueries, got.data());
  } else {
    tm::AddValues(shape, record.data(), given.data(), kQueries, got.data());
  }
  tm::Decode(shape, record.data(), rows.data());
  // What was found valid decodes to numbers.
  for (const float value : rows) {
    if (valid && !std::isfinite(value)) std::abort();
  }
  for (const float value : got) {
    if (valid && !std::isfinite(value)) std::abort();
  }
  return 0;
}
