#include "engine/gguf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/posix.h"
#include "base/status_macros.h"
#include "engine/ggml_log.h"

#include <fmt/format.h>

namespace kvasir::engine {
namespace {

constexpr uint64_t kHeaderBytes = 24;      // magic, version, two counts
constexpr uint64_t kTensorAlignment = 32;  // what ggml's vector code and buffers want
constexpr int64_t kTensorsMax = 1 << 16;

absl::StatusOr<MappedRegion> MapFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoStatus(errno, fmt::format("open of model file {}", path));
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, fmt::format("fstat of {}", path));
  if (!S_ISREG(info.st_mode)) return InvalidArgument("model is no regular file: path={}", path);
  const uint64_t bytes = static_cast<uint64_t>(info.st_size);
  if (bytes < kHeaderBytes) {
    return DataLoss("model file is too short for GGUF: path={} bytes={} min={}", path, bytes,
                    kHeaderBytes);
  }
  return MappedRegion::Map(fd, bytes, Access::kReadOnly);
}

// The signed or unsigned integer of any width at `index`, if it is one and not negative.
std::optional<uint64_t> IntegerAt(const gguf_context* gguf, int64_t index) {
  int64_t value = 0;
  switch (gguf_get_kv_type(gguf, index)) {
    case GGUF_TYPE_UINT8:
      value = gguf_get_val_u8(gguf, index);
      break;
    case GGUF_TYPE_INT8:
      value = gguf_get_val_i8(gguf, index);
      break;
    case GGUF_TYPE_UINT16:
      value = gguf_get_val_u16(gguf, index);
      break;
    case GGUF_TYPE_INT16:
      value = gguf_get_val_i16(gguf, index);
      break;
    case GGUF_TYPE_UINT32:
      value = gguf_get_val_u32(gguf, index);
      break;
    case GGUF_TYPE_INT32:
      value = gguf_get_val_i32(gguf, index);
      break;
    case GGUF_TYPE_INT64:
      value = gguf_get_val_i64(gguf, index);
      break;
    case GGUF_TYPE_UINT64:
      return gguf_get_val_u64(gguf, index);
    default:
      return std::nullopt;
  }
  if (value < 0) return std::nullopt;
  return static_cast<uint64_t>(value);
}

}  // namespace

absl::StatusOr<GgufFile> GgufFile::Open(const std::string& path) {
  QuietLibraries();
  GgufFile file;
  KVASIR_ASSIGN_OR_RETURN(file.mapping_, MapFile(path));
  if (std::memcmp(file.mapping_.data(), GGUF_MAGIC, 4) != 0) {
    return InvalidArgument("not a GGUF file, the first 4 bytes are not GGUF: path={}", path);
  }
  ggml_context* tensors = nullptr;
  TakeLibraryErrors();
  gguf_context* gguf = gguf_init_from_buffer(file.mapping_.data(), file.mapping_.bytes(),
                                             gguf_init_params{.no_alloc = true, .ctx = &tensors});
  file.gguf_.reset(gguf);
  file.tensors_.reset(tensors);
  if (gguf == nullptr || tensors == nullptr) {
    return DataLoss("GGUF header is cut or damaged: path={} reason={}", path, TakeLibraryErrors());
  }
  KVASIR_RETURN_IF_ERROR(file.CheckTensors());
  return file;
}

absl::Status GgufFile::CheckTensors() const {
  const int64_t count = gguf_get_n_tensors(gguf_.get());
  if (count > kTensorsMax) {
    return InvalidArgument("too many tensors in model file: tensors={} max={}", count, kTensorsMax);
  }
  const uint64_t data_offset = gguf_get_data_offset(gguf_.get());
  if (gguf_get_alignment(gguf_.get()) % kTensorAlignment != 0) {
    return InvalidArgument("general.alignment must be a multiple of {}: general.alignment={}",
                           kTensorAlignment, gguf_get_alignment(gguf_.get()));
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t offset = gguf_get_tensor_offset(gguf_.get(), i);
    const uint64_t bytes = gguf_get_tensor_size(gguf_.get(), i);
    uint64_t begin = 0;
    uint64_t end = 0;
    if (__builtin_add_overflow(data_offset, offset, &begin) ||
        __builtin_add_overflow(begin, bytes, &end) || end > mapping_.bytes()) {
      return DataLoss(
          "model file is cut, tensor lies beyond its end: tensor={} offset={} bytes={} "
          "file_bytes={}",
          gguf_get_tensor_name(gguf_.get(), i), begin, bytes, mapping_.bytes());
    }
  }
  return absl::OkStatus();
}

bool GgufFile::Has(const std::string& key) const {
  return gguf_find_key(gguf_.get(), key.c_str()) >= 0;
}

absl::StatusOr<int64_t> GgufFile::KeyIndex(const std::string& key) const {
  const int64_t index = gguf_find_key(gguf_.get(), key.c_str());
  if (index < 0) return NotFound("model file lacks a key: key={}", key);
  return index;
}

absl::StatusOr<uint64_t> GgufFile::Integer(const std::string& key, uint64_t min,
                                           uint64_t max) const {
  KVASIR_ASSIGN_OR_RETURN(const int64_t index, KeyIndex(key));
  const std::optional<uint64_t> value = IntegerAt(gguf_.get(), index);
  if (!value) return InvalidArgument("model key is no unsigned integer: key={}", key);
  if (*value < min || *value > max) {
    return InvalidArgument("model key out of bounds: key={} value={} min={} max={}", key, *value,
                           min, max);
  }
  return *value;
}

absl::StatusOr<double> GgufFile::Real(const std::string& key, double min, double max) const {
  KVASIR_ASSIGN_OR_RETURN(const int64_t index, KeyIndex(key));
  double value = 0;
  switch (gguf_get_kv_type(gguf_.get(), index)) {
    case GGUF_TYPE_FLOAT32:
      value = static_cast<double>(gguf_get_val_f32(gguf_.get(), index));
      break;
    case GGUF_TYPE_FLOAT64:
      value = gguf_get_val_f64(gguf_.get(), index);
      break;
    default:
      return InvalidArgument("model key is no floating-point number: key={}", key);
  }
  if (!(value >= min && value <= max)) {  // also false for NaN
    return InvalidArgument("model key out of bounds: key={} value={} min={} max={}", key, value,
                           min, max);
  }
  return value;
}

absl::StatusOr<std::string> GgufFile::Text(const std::string& key) const {
  KVASIR_ASSIGN_OR_RETURN(const int64_t index, KeyIndex(key));
  if (gguf_get_kv_type(gguf_.get(), index) != GGUF_TYPE_STRING) {
    return InvalidArgument("model key is no string: key={}", key);
  }
  return std::string(gguf_get_val_str(gguf_.get(), index));
}

absl::StatusOr<uint64_t> GgufFile::ArraySize(const std::string& key, gguf_type type) const {
  KVASIR_ASSIGN_OR_RETURN(const int64_t index, KeyIndex(key));
  if (gguf_get_kv_type(gguf_.get(), index) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(gguf_.get(), index) != type) {
    return InvalidArgument("model key is no array of the expected type: key={} type={}", key,
                           gguf_type_name(type));
  }
  return gguf_get_arr_n(gguf_.get(), index);
}

absl::StatusOr<std::vector<std::string>> GgufFile::Texts(const std::string& key) const {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t size, ArraySize(key, GGUF_TYPE_STRING));
  const int64_t index = gguf_find_key(gguf_.get(), key.c_str());
  std::vector<std::string> texts;
  texts.reserve(size);
  for (uint64_t i = 0; i < size; ++i) texts.emplace_back(gguf_get_arr_str(gguf_.get(), index, i));
  return texts;
}

absl::StatusOr<std::vector<int32_t>> GgufFile::Integers(const std::string& key) const {
  KVASIR_ASSIGN_OR_RETURN(const uint64_t size, ArraySize(key, GGUF_TYPE_INT32));
  std::vector<int32_t> values(size);
  if (size != 0) {
    const void* data = gguf_get_arr_data(gguf_.get(), gguf_find_key(gguf_.get(), key.c_str()));
    std::memcpy(values.data(), data, size * sizeof(int32_t));
  }
  return values;
}

ggml_tensor* GgufFile::Find(const std::string& name) const {
  return ggml_get_tensor(tensors_.get(), name.c_str());
}

std::vector<std::string> GgufFile::TensorNames() const {
  std::vector<std::string> names;
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); ++i) {
    names.emplace_back(gguf_get_tensor_name(gguf_.get(), i));
  }
  return names;
}

std::byte* GgufFile::DataOf(const ggml_tensor* tensor) const {
  const int64_t index = gguf_find_tensor(gguf_.get(), ggml_get_name(tensor));
  return mapping_.data() + gguf_get_data_offset(gguf_.get()) +
         gguf_get_tensor_offset(gguf_.get(), index);
}

}  // namespace kvasir::engine
