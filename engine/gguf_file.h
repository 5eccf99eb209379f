// GgufFile: a read-only mapping of a GGUF file with checked access to its keys and tensors.
//
// The file is hostile: nothing here lets a damaged one reach an assertion inside ggml. The content
// must not change while the file is open: a file that shrinks under a mapping ends the process
// (SIGBUS).
#ifndef KVASIR_ENGINE_GGUF_FILE_H_
#define KVASIR_ENGINE_GGUF_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/mapped_region.h"

#include <ggml-cpp.h>

namespace kvasir::engine {

// Move-only. Const methods are thread-safe.
class GgufFile {
 public:
  // Errors: the kernel's for `path`; kInvalidArgument where it is no GGUF file; kDataLoss where it
  // is cut, or a tensor's bytes lie outside of it.
  static absl::StatusOr<GgufFile> Open(const std::string& path);

  bool Has(const std::string& key) const;

  // Values by key. Errors: kNotFound without the key, kInvalidArgument for another type or a value
  // outside [min, max]; all name the key.
  absl::StatusOr<uint64_t> Integer(const std::string& key, uint64_t min, uint64_t max) const;
  absl::StatusOr<double> Real(const std::string& key, double min, double max) const;
  absl::StatusOr<std::string> Text(const std::string& key) const;

  // Number of entries of an array of element type `type`. Errors: like the above.
  absl::StatusOr<uint64_t> ArraySize(const std::string& key, gguf_type type) const;
  // Entries of an array of strings, or of 32-bit integers.
  absl::StatusOr<std::vector<std::string>> Texts(const std::string& key) const;
  absl::StatusOr<std::vector<int32_t>> Integers(const std::string& key) const;

  // Tensor by name, with shape and type but no data; null if the file has none of that name.
  ggml_tensor* Find(const std::string& name) const;
  // All tensor names, in file order.
  std::vector<std::string> TensorNames() const;
  // The tensor's bytes in the mapping: ggml_nbytes(tensor) of them, 32-byte aligned.
  std::byte* DataOf(const ggml_tensor* tensor) const;

  const MappedRegion& mapping() const { return mapping_; }
  // Owner of the tensors that Find() returns.
  ggml_context* tensors() const { return tensors_.get(); }

 private:
  absl::Status CheckTensors() const;
  absl::StatusOr<int64_t> KeyIndex(const std::string& key) const;

  MappedRegion mapping_;
  ggml_context_ptr tensors_;
  gguf_context_ptr gguf_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_GGUF_FILE_H_
