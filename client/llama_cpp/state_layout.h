// StateLayout: the bytes of llama_state_seq_get_data(), as far as they tell where the rows of a
// sequence lie. The format has no version of its own; what does not fit to the byte is refused.
#ifndef KVASIR_CLIENT_LLAMA_CPP_STATE_LAYOUT_H_
#define KVASIR_CLIENT_LLAMA_CPP_STATE_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kvasir::llama_cpp {

// One layer that has a cache, in the order of the state.
struct StateLayer {
  int32_t k_type = 0, v_type = 0;  // ggml_type
  uint64_t k_row_bytes = 0;
  uint64_t v_row_bytes = 0;                      // 0: no V
  uint32_t v_element_bytes = 0, v_elements = 0;  // where V is transposed
  // Where the rows of the sequence begin: those of K and of V one behind the other, or where V is
  // transposed [element][cell].
  size_t k_at = 0, v_at = 0;

  bool operator==(const StateLayer& other) const {
    return k_type == other.k_type && v_type == other.v_type && k_row_bytes == other.k_row_bytes &&
           v_row_bytes == other.v_row_bytes;
  }
};

struct StateLayout {
  uint32_t streams = 1;
  bool v_transposed = false;
  bool has_rotations = false;  // since 0.6.0
  uint32_t k_rotation = 0, v_rotation = 0;
  std::vector<StateLayer> layers;
  std::vector<int32_t> positions;  // of each cell
  size_t bytes = 0;

  // For keys and for people: two layouts are alike where this is.
  std::string Text() const;
  // This layout with other cells.
  StateLayout With(std::vector<int32_t> positions_of_cells) const;
  // Writes what is not rows, for sequence 0; the bytes of rows are left alone. REQUIRES: `state`
  // has `bytes` bytes.
  void WriteTo(std::span<std::byte> state) const;
};

// Magic and sequence, with which a state in memory begins and one in a file does not.
inline constexpr size_t kStateHeadBytes = 8;
void WriteStateHead(std::byte* to);

// Nothing for a state that is of another format: a sliding window beside full attention, recurrent
// layers, positions in two dimensions. Reads no byte of a row.
std::optional<StateLayout> ParseState(std::span<const std::byte> state);

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_STATE_LAYOUT_H_
