#include "client/llama_cpp/state_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <ggml.h>

namespace kvasir::llama_cpp {
std::optional<StateImage> StateImage::OfSize(size_t bytes) {
  void* const base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return std::nullopt;
  return StateImage(static_cast<std::byte*>(base), bytes);
}

std::optional<StateImage> StateImage::Make(const StateLayout& layout) {
  std::optional<StateImage> image = OfSize(layout.bytes);
  if (image) layout.WriteTo(image->bytes());
  return image;
}

StateImage::StateImage(StateImage&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      bytes_(other.bytes_),
      pieces_(std::move(other.pieces_)),
      last_(other.last_) {}

StateImage::~StateImage() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

void StateImage::NoteTransfer(void* image, const kvasir_transfer* transfer) {
  auto* const self = static_cast<StateImage*>(image);
  const auto at = static_cast<size_t>(static_cast<const std::byte*>(transfer->data) - self->base_);
  self->pieces_.push_back(
      {at, transfer->size, static_cast<std::byte*>(transfer->tensor->data) + transfer->offset});
}

void StateImage::ForgetTransfers() {
  pieces_.clear();
  last_ = 0;
}

uint64_t StateImage::captured_bytes() const {
  uint64_t bytes = 0;
  for (const Piece& piece : pieces_) bytes += piece.bytes;
  return bytes;
}

template <typename Copy>
void StateImage::ForEachPiece(size_t at, size_t bytes, const Copy& copy) {
  if (pieces_.empty()) return copy(base_ + at, 0, bytes);
  for (size_t done = 0; done < bytes;) {
    const size_t want = at + done;
    // Rows are asked for in the order of the pieces, mostly.
    if (last_ >= pieces_.size() || want < pieces_[last_].at ||
        want >= pieces_[last_].at + pieces_[last_].bytes) {
      const auto behind =
          std::upper_bound(pieces_.begin(), pieces_.end(), want,
                           [](size_t value, const Piece& piece) { return value < piece.at; });
      if (behind == pieces_.begin()) return;  // no row lies there
      last_ = static_cast<size_t>(behind - pieces_.begin()) - 1;
    }
    const Piece& piece = pieces_[last_];
    const size_t offset = want - piece.at;
    if (offset >= piece.bytes) return;
    const size_t here = std::min(bytes - done, piece.bytes - offset);
    copy(piece.memory + offset, done, here);
    done += here;
  }
}

void StateImage::ReadRows(const StateLayout& layout, const StateLayer& layer, const RowRun& to) {
  const auto read = [this](size_t at, std::byte* row, size_t bytes) {
    ForEachPiece(at, bytes, [row](const std::byte* memory, size_t offset, size_t count) {
      std::memcpy(row + offset, memory, count);
    });
  };
  const auto read_plane = [&](size_t at, std::byte* first, size_t stride, size_t row_bytes) {
    if (stride == row_bytes) return read(at + to.cell * row_bytes, first, to.rows * row_bytes);
    for (size_t i = 0; i < to.rows; ++i) {
      read(at + (to.cell + i) * row_bytes, first + i * stride, row_bytes);
    }
  };
  read_plane(layer.k_at, to.k, to.k_stride, layer.k_row_bytes);
  if (layer.v_row_bytes == 0) return;
  if (!layout.v_transposed) return read_plane(layer.v_at, to.v, to.v_stride, layer.v_row_bytes);
  const size_t element = layer.v_element_bytes, cells = layout.positions.size();
  std::vector<std::byte> column(to.rows * element);
  for (size_t j = 0; j < layer.v_elements; ++j) {
    read(layer.v_at + (j * cells + to.cell) * element, column.data(), column.size());
    for (size_t i = 0; i < to.rows; ++i) {
      std::memcpy(to.v + i * to.v_stride + j * element, column.data() + i * element, element);
    }
  }
}

void StateImage::WriteRows(const StateLayout& layout, const StateLayer& layer, const RowRun& from) {
  const auto write = [this](size_t at, const std::byte* row, size_t bytes) {
    ForEachPiece(at, bytes, [row](std::byte* memory, size_t offset, size_t count) {
      std::memcpy(memory, row + offset, count);
    });
  };
  const auto write_plane = [&](size_t at, const std::byte* first, size_t stride, size_t row_bytes) {
    if (stride == row_bytes) return write(at + from.cell * row_bytes, first, from.rows * row_bytes);
    for (size_t i = 0; i < from.rows; ++i) {
      write(at + (from.cell + i) * row_bytes, first + i * stride, row_bytes);
    }
  };
  write_plane(layer.k_at, from.k, from.k_stride, layer.k_row_bytes);
  if (layer.v_row_bytes == 0) return;
  if (!layout.v_transposed) {
    return write_plane(layer.v_at, from.v, from.v_stride, layer.v_row_bytes);
  }
  const size_t element = layer.v_element_bytes, cells = layout.positions.size();
  std::vector<std::byte> column(from.rows * element);
  for (size_t j = 0; j < layer.v_elements; ++j) {
    for (size_t i = 0; i < from.rows; ++i) {
      std::memcpy(column.data() + i * element, from.v + i * from.v_stride + j * element, element);
    }
    write(layer.v_at + (j * cells + from.cell) * element, column.data(), column.size());
  }
}

}  // namespace kvasir::llama_cpp
