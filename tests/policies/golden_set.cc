#include "tests/policies/golden_set.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir::testing {
namespace {

static_assert(std::endian::native == std::endian::little, "sets are little-endian");

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kElementBytes = 4;
constexpr size_t kMaxRank = 8;

template <typename... Args>
[[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) {
  throw std::runtime_error(fmt::format(format, std::forward<Args>(args)...));
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  for (size_t at = 0;; ++at) {
    const size_t end = std::min(text.find(separator, at), text.size());
    fields.push_back(text.substr(at, end - at));
    if (end == text.size()) return fields;
    at = end;
  }
}

uint64_t ParseNumber(std::string_view what, std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail("{} is no number: {}", what, text);
  }
  return value;
}

template <typename T>
std::vector<T> Copy(std::span<const std::byte> bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// tensor name dtype AxBxC offset nbytes
GoldenTensor ParseTensor(const std::vector<std::string_view>& fields,
                         std::span<const std::byte> data) {
  GoldenTensor tensor;
  if (fields[2] != "f32" && fields[2] != "i32") Fail("unknown dtype {}", fields[2]);
  tensor.is_float = fields[2] == "f32";
  uint64_t elements = 1;
  for (const std::string_view dim : Split(fields[3], 'x')) {
    tensor.shape.push_back(ParseNumber("dimension", dim));
    // Every step stays below 2^64: the product so far fits the data.
    if (tensor.shape.back() > data.size() || tensor.shape.size() > kMaxRank) {
      Fail("shape {} is larger than the data of {} bytes", fields[3], data.size());
    }
    elements *= tensor.shape.back();
    if (elements > data.size()) Fail("shape {} is larger than the data", fields[3]);
  }
  const uint64_t offset = ParseNumber("offset", fields[4]);
  const uint64_t bytes = ParseNumber("nbytes", fields[5]);
  if (bytes != elements * kElementBytes) Fail("nbytes {} is not that of {}", bytes, fields[3]);
  if (offset % kAlignment != 0) Fail("offset {} is not a multiple of {}", offset, kAlignment);
  if (offset > data.size() || bytes > data.size() - offset) {
    Fail("offset {} and nbytes {} lie outside of {} bytes", offset, bytes, data.size());
  }
  const std::span<const std::byte> values = data.subspan(offset, bytes);
  tensor.is_float ? void(tensor.floats = Copy<float>(values))
                  : void(tensor.integers = Copy<int32_t>(values));
  for (const float value : tensor.floats) {
    if (!std::isfinite(value)) Fail("tensor {} holds a value that is not finite", fields[1]);
  }
  return tensor;
}

class Parser {
 public:
  explicit Parser(std::span<const std::byte> data) : data_(data) {}

  void Line(std::string_view line) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) return;
    const std::vector<std::string_view> fields = Split(line, '\t');
    const auto is = [&](std::string_view word, size_t size, bool inside) {
      if (fields[0] != word) return false;
      if (fields.size() != size) Fail("{} with {} fields, not {}", word, fields.size(), size);
      if (inside != open_) Fail("{} {} a case", word, inside ? "outside of" : "inside");
      return true;
    };
    if (is("case", 3, false)) {
      GoldenCase& added = cases_.emplace_back();
      added.name = fields[1];
      added.algorithm = fields[2];
      if (!names_.insert(added.name).second) Fail("case {} twice", added.name);
      open_ = true;
    } else if (is("param", 3, true)) {
      if (!cases_.back().params.emplace(fields[1], fields[2]).second) {
        Fail("param {} twice", fields[1]);
      }
    } else if (is("tensor", 6, true)) {
      if (!cases_.back().tensors.emplace(fields[1], ParseTensor(fields, data_)).second) {
        Fail("tensor {} twice", fields[1]);
      }
    } else if (is("end", 1, true)) {
      open_ = false;
    } else {
      Fail("unknown word {}", fields[0]);
    }
  }

  std::vector<GoldenCase> Finish() {
    if (open_) Fail("case {} has no end", cases_.back().name);
    if (cases_.empty()) Fail("no cases");
    return std::move(cases_);
  }

 private:
  std::span<const std::byte> data_;
  std::vector<GoldenCase> cases_;
  std::set<std::string> names_;
  bool open_ = false;
};

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail("{}: cannot open", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

const std::string& GoldenCase::Text(const std::string& param) const {
  const auto it = params.find(param);
  if (it == params.end()) Fail("no param {}", param);
  return it->second;
}

uint64_t GoldenCase::Number(const std::string& param, uint64_t min, uint64_t max) const {
  const uint64_t value = ParseNumber(param, Text(param));
  if (value < min || value > max) Fail("{}={} is outside {} to {}", param, value, min, max);
  return value;
}

double GoldenCase::Real(const std::string& param) const {
  const std::string& text = Text(param);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    Fail("{} is no number: {}", param, text);
  }
  return value;
}

const GoldenTensor& GoldenCase::Tensor(const std::string& tensor) const {
  const auto it = tensors.find(tensor);
  if (it == tensors.end()) Fail("no tensor {}", tensor);
  return it->second;
}

std::vector<uint64_t> GoldenCase::Shape(const std::string& tensor, size_t rank) const {
  const std::vector<uint64_t>& shape = Tensor(tensor).shape;
  if (shape.size() != rank) Fail("{} has rank {}, not {}", tensor, shape.size(), rank);
  return shape;
}

const std::vector<float>& GoldenCase::Floats(const std::string& tensor,
                                             const std::vector<uint64_t>& shape) const {
  const GoldenTensor& found = Tensor(tensor);
  if (!found.is_float || found.shape != shape) {
    Fail("{} is not f32 {}", tensor, fmt::join(shape, "x"));
  }
  return found.floats;
}

const std::vector<int32_t>& GoldenCase::Integers(const std::string& tensor,
                                                 const std::vector<uint64_t>& shape) const {
  const GoldenTensor& found = Tensor(tensor);
  if (found.is_float || found.shape != shape) {
    Fail("{} is not i32 {}", tensor, fmt::join(shape, "x"));
  }
  return found.integers;
}

std::vector<GoldenCase> ParseGoldenSet(std::string_view description,
                                       std::span<const std::byte> data) {
  Parser parser(data);
  size_t number = 0;
  for (const std::string_view line : Split(description, '\n')) {
    ++number;
    try {
      parser.Line(line);
    } catch (const std::runtime_error& error) {
      Fail("line {}: {}", number, error.what());
    }
  }
  return parser.Finish();
}

std::vector<GoldenCase> ReadGoldenSet(const std::filesystem::path& description) {
  std::filesystem::path data_path = description;
  const std::string text = ReadFile(description);
  const std::string data = ReadFile(data_path.replace_extension(".bin"));
  try {
    return ParseGoldenSet(text, std::as_bytes(std::span(data)));
  } catch (const std::runtime_error& error) {
    Fail("{}: {}", description.string(), error.what());
  }
}

GoldenFolder FindGoldenFiles(const std::filesystem::path& standard) {
  const char* named = std::getenv("KVASIR_GOLDEN_DIR");
  const std::filesystem::path folder = named != nullptr ? named : standard;
  GoldenFolder found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    if (extension == ".tsv") found.selection.push_back(entry.path());
    if (extension == ".jsonl" &&
        (name.find("stream") != std::string::npos || name.find("static") != std::string::npos)) {
      found.retention.push_back(entry.path());
    }
  }
  if (found.retention.empty() && found.selection.empty()) {
    Fail("{}: no *stream*.jsonl, no *static*.jsonl and no *.tsv in it", folder.string());
  }
  std::sort(found.retention.begin(), found.retention.end());
  std::sort(found.selection.begin(), found.selection.end());
  return found;
}

}  // namespace kvasir::testing
