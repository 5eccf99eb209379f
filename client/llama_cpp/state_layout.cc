#include "client/llama_cpp/state_layout.h"

#include <cstring>
#include <utility>

namespace kvasir::llama_cpp {
namespace {

constexpr uint32_t kMagic = 0xaf143cd8;
constexpr uint32_t kCountMax =
    1 << 24;  // streams, cells, layers, elements: bounds what is reserved

// Reads values one behind the other; once past the end it stays there.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T Read() {
    T value{};
    const size_t at = Skip(sizeof(T));
    if (ok_) std::memcpy(&value, bytes_.data() + at, sizeof(T));
    return value;
  }
  // Where the skipped bytes begin.
  size_t Skip(uint64_t bytes) {
    if (!ok_ || bytes > bytes_.size() - at_) {
      ok_ = false;
      return 0;
    }
    const size_t at = at_;
    at_ += bytes;
    return at;
  }
  uint32_t Count() {
    const auto count = Read<uint32_t>();
    ok_ = ok_ && count <= kCountMax;
    return ok_ ? count : 0;
  }
  bool ok() const { return ok_; }
  void Fail() { ok_ = false; }
  bool at_end() const { return ok_ && at_ == bytes_.size(); }

 private:
  const std::span<const std::byte> bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

class Writer {
 public:
  // Null: only counts.
  explicit Writer(std::byte* to) : to_(to) {}

  template <typename T>
  void Write(T value) {
    const size_t at = Skip(sizeof(T));
    if (to_ != nullptr) std::memcpy(to_ + at, &value, sizeof(T));
  }
  size_t Skip(size_t bytes) { return std::exchange(at_, at_ + bytes); }
  size_t at() const { return at_; }

 private:
  std::byte* const to_;
  size_t at_ = 0;
};

void ReadKeys(Reader& reader, StateLayer& layer, uint64_t cells) {
  layer.k_type = reader.Read<int32_t>();
  layer.k_row_bytes = reader.Read<uint64_t>();
  if (layer.k_row_bytes == 0 || layer.k_row_bytes > kCountMax) reader.Fail();
  layer.k_at = reader.Skip(reader.ok() ? layer.k_row_bytes * cells : 0);
}

void ReadValues(Reader& reader, StateLayer& layer, uint64_t cells, bool transposed) {
  layer.v_type = reader.Read<int32_t>();
  if (transposed) {
    layer.v_element_bytes = reader.Count();
    layer.v_elements = reader.Count();
    layer.v_row_bytes = uint64_t{layer.v_element_bytes} * layer.v_elements;
  } else {
    layer.v_row_bytes = reader.Read<uint64_t>();
  }
  if (layer.v_row_bytes == 0 || layer.v_row_bytes > kCountMax) reader.Fail();
  layer.v_at = reader.Skip(reader.ok() ? layer.v_row_bytes * cells : 0);
}

// Writes `layout`, or without a place to write to counts; offsets of rows go into `layers`.
size_t Write(const StateLayout& layout, std::byte* to, std::vector<StateLayer>& layers) {
  Writer writer(to);
  const size_t cells = layout.positions.size();
  writer.Write(kMagic);
  writer.Write(int32_t{0});
  writer.Write(layout.streams);
  writer.Write(static_cast<uint32_t>(cells));
  for (const int32_t position : layout.positions) {
    writer.Write(position);
    writer.Write(uint32_t{1});  // sequences of the cell
    writer.Write(int32_t{0});
  }
  writer.Write(uint32_t{layout.v_transposed});
  writer.Write(static_cast<uint32_t>(layers.size()));
  if (layout.has_rotations) {
    writer.Write(layout.k_rotation);
    writer.Write(layout.v_rotation);
  }
  for (StateLayer& layer : layers) {
    writer.Write(layer.k_type);
    writer.Write(layer.k_row_bytes);
    layer.k_at = writer.Skip(layer.k_row_bytes * cells);
  }
  for (StateLayer& layer : layers) {
    if (layer.v_row_bytes == 0) continue;
    writer.Write(layer.v_type);
    if (layout.v_transposed) {
      writer.Write(layer.v_element_bytes);
      writer.Write(layer.v_elements);
    } else {
      writer.Write(layer.v_row_bytes);
    }
    layer.v_at = writer.Skip(layer.v_row_bytes * cells);
  }
  for (uint32_t stream = 1; stream < layout.streams; ++stream) writer.Write(uint32_t{0});
  return writer.at();
}

std::optional<StateLayout> ParseAs(std::span<const std::byte> state, bool has_rotations,
                                   bool has_values) {
  Reader reader(state);
  StateLayout layout;
  layout.has_rotations = has_rotations;
  layout.bytes = state.size();
  if (reader.Read<uint32_t>() != kMagic) return std::nullopt;
  (void)reader.Read<int32_t>();  // the sequence, which whoever reads it replaces by its own
  layout.streams = reader.Count();
  for (uint32_t stream = 0; stream < layout.streams && reader.ok(); ++stream) {
    const uint32_t cells = reader.Count();
    if (cells == 0) continue;
    if (!layout.positions.empty()) return std::nullopt;  // a sequence has one stream
    for (uint32_t i = 0; i < cells && reader.ok(); ++i) {
      layout.positions.push_back(reader.Read<int32_t>());
      if (reader.Read<uint32_t>() != 1) return std::nullopt;
      (void)reader.Read<int32_t>();
    }
    const auto transposed = reader.Read<uint32_t>();
    if (transposed > 1) return std::nullopt;
    layout.v_transposed = transposed == 1;
    layout.layers.resize(reader.Count());
    if (has_rotations) {
      layout.k_rotation = reader.Read<uint32_t>();
      layout.v_rotation = reader.Read<uint32_t>();
    }
    for (StateLayer& layer : layout.layers) {
      if (reader.ok()) ReadKeys(reader, layer, cells);
    }
    for (StateLayer& layer : layout.layers) {
      if (reader.ok() && has_values) ReadValues(reader, layer, cells, layout.v_transposed);
    }
  }
  if (!reader.at_end() || layout.layers.empty()) return std::nullopt;
  return layout;
}

}  // namespace

void WriteStateHead(std::byte* to) {
  Writer writer(to);
  writer.Write(kMagic);
  writer.Write(int32_t{0});
}

std::optional<StateLayout> ParseState(std::span<const std::byte> state) {
  // Which of them it is, nothing says; it is the one that fits to the last byte.
  for (const bool has_rotations : {true, false}) {
    for (const bool has_values : {true, false}) {
      if (auto layout = ParseAs(state, has_rotations, has_values)) return layout;
    }
  }
  return std::nullopt;
}

std::string StateLayout::Text() const {
  std::string text = v_transposed ? "v=[element][cell]" : "v=[cell][element]";
  text += " rotations=" + std::to_string(k_rotation) + "," + std::to_string(v_rotation);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0 && layers[i] == layers[i - 1]) continue;
    const StateLayer& layer = layers[i];
    text += " from_layer=" + std::to_string(i) + " k=" + std::to_string(layer.k_type) + "x" +
            std::to_string(layer.k_row_bytes) + " v=" + std::to_string(layer.v_type) + "x" +
            std::to_string(layer.v_row_bytes);
  }
  return text + " layers=" + std::to_string(layers.size());
}

StateLayout StateLayout::With(std::vector<int32_t> positions_of_cells) const {
  StateLayout other = *this;
  other.positions = std::move(positions_of_cells);
  other.bytes = Write(other, nullptr, other.layers);
  return other;
}

void StateLayout::WriteTo(std::span<std::byte> state) const {
  std::vector<StateLayer> same = layers;
  (void)Write(*this, state.data(), same);
}

}  // namespace kvasir::llama_cpp
