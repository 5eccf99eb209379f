// Reader of golden sets: NAME.tsv describes the cases, NAME.bin holds their tensors. Both are
// hostile: whatever does not fit throws std::runtime_error with the line.
// tests/data/select/README.md has the format. And the files of a folder with golden vectors, by
// format.
#ifndef KVASIR_TESTS_POLICIES_GOLDEN_SET_H_
#define KVASIR_TESTS_POLICIES_GOLDEN_SET_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir::testing {

struct GoldenTensor {
  std::vector<uint64_t> shape;
  bool is_float = false;
  std::vector<float> floats;      // where is_float
  std::vector<int32_t> integers;  // where not
};

class GoldenCase {
 public:
  std::string name;
  std::string algorithm;
  std::map<std::string, std::string> params;
  std::map<std::string, GoldenTensor> tensors;

  // All throw where the item is missing, malformed, out of bounds or of another type or rank.
  uint64_t Number(const std::string& param, uint64_t min, uint64_t max) const;
  double Real(const std::string& param) const;
  const std::string& Text(const std::string& param) const;
  std::vector<uint64_t> Shape(const std::string& tensor, size_t rank) const;
  const std::vector<float>& Floats(const std::string& tensor,
                                   const std::vector<uint64_t>& shape) const;
  const std::vector<int32_t>& Integers(const std::string& tensor,
                                       const std::vector<uint64_t>& shape) const;

 private:
  const GoldenTensor& Tensor(const std::string& tensor) const;
};

std::vector<GoldenCase> ParseGoldenSet(std::string_view description,
                                       std::span<const std::byte> data);
// `description`: NAME.tsv; NAME.bin lies beside it.
std::vector<GoldenCase> ReadGoldenSet(const std::filesystem::path& description);

// Sorted. A test of one format passes over a folder that holds only the other.
struct GoldenFolder {
  std::vector<std::filesystem::path> retention;  // *stream*.jsonl and *static*.jsonl
  std::vector<std::filesystem::path> selection;  // *.tsv
};
// The folder named by KVASIR_GOLDEN_DIR, or else `standard`. Throws for a folder that cannot be
// read or has files of neither format.
GoldenFolder FindGoldenFiles(const std::filesystem::path& standard);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_GOLDEN_SET_H_
