// StateImage: a sequence's state as llama.cpp reads and writes it, whose rows need not be in it.
#ifndef KVASIR_CLIENT_LLAMA_CPP_STATE_IMAGE_H_
#define KVASIR_CLIENT_LLAMA_CPP_STATE_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "client/llama_cpp/plugin_hooks.h"
#include "client/llama_cpp/state_layout.h"

namespace kvasir::llama_cpp {

// Neighbouring rows of one layer outside llama.cpp, which stand in the cells from `cell` on.
struct RowRun {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  size_t k_stride = 0, v_stride = 0;  // bytes
  uint32_t rows = 0;
  size_t cell = 0;
};

// Address space of the state's size, of which pages are taken as they are written. Where rows are
// elsewhere, such as in llama.cpp's tensors, NoteTransfer() has been told so.
class StateImage {
 public:
  // Nothing where there is no address space.
  static std::optional<StateImage> OfSize(size_t bytes);
  // Room for a state of that layout, with all but its rows.
  static std::optional<StateImage> Make(const StateLayout& layout);
  StateImage(const StateImage&) = delete;
  StateImage& operator=(const StateImage&) = delete;
  StateImage(StateImage&& other) noexcept;
  StateImage& operator=(StateImage&&) = delete;
  ~StateImage();

  // A kvasir_transfer_sink whose `user` is an image: its rows between `data` and `data` + `size`
  // lie in the tensor.
  static void NoteTransfer(void* image, const kvasir_transfer* transfer);
  void ForgetTransfers();

  std::span<std::byte> bytes() const { return {base_, bytes_}; }
  uint64_t captured_bytes() const;

  // `layout`: of this image.
  void ReadRows(const StateLayout& layout, const StateLayer& layer, const RowRun& to);
  void WriteRows(const StateLayout& layout, const StateLayer& layer, const RowRun& from);

 private:
  struct Piece {
    size_t at;  // in the state
    size_t bytes;
    std::byte* memory;
  };
  StateImage(std::byte* base, size_t bytes) : base_(base), bytes_(bytes) {}
  // Calls `copy(memory, offset, bytes)` for each piece of memory that `bytes` bytes at `at` lie in.
  template <typename Copy>
  void ForEachPiece(size_t at, size_t bytes, const Copy& copy);

  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
  std::vector<Piece> pieces_;  // ascending
  size_t last_ = 0;            // index of the piece that was found last
};

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_STATE_IMAGE_H_
