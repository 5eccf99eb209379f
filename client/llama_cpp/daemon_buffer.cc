#include "client/llama_cpp/daemon_buffer.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace kvasir::llama_cpp {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
// Above it blocks of 16 MiB: a process may have 65,530 mappings.
constexpr size_t kLargeBytes = size_t{4} << 30;
constexpr uint32_t kSmallRowBytes = 128 << 10, kLargeRowBytes = 1 << 20;
// Blocks of one request: the daemon serves others between two of them.
constexpr uint32_t kBlocksAtOnce = 64;

std::string Mebibytes(uint64_t bytes) { return std::to_string((bytes + kMiB - 1) / kMiB) + " MiB"; }

std::string Given(const char* value, const char* variable) {
  if (value == nullptr) value = std::getenv(variable);
  return value == nullptr ? "" : value;
}

}  // namespace

DaemonPlace FindDaemon(const char* control_socket, const char* data_socket) {
  DaemonPlace place;
  place.control_socket = Given(control_socket, "KVASIR_CONTROL_SOCKET");
  if (place.control_socket.empty()) place.control_socket = "/run/kvasir/control.sock";
  place.data_socket = Given(data_socket, "KVASIR_DATA_SOCKET");
  if (place.data_socket.empty()) {
    const size_t folder = place.control_socket.find_last_of('/') + 1;  // 0 where there is none
    place.data_socket = place.control_socket.substr(0, folder) + "data.sock";
  }
  return place;
}

OwnedSession ConnectTo(const DaemonPlace& place, kvasir_error* error) {
  kvasir_connect_options options{};
  options.struct_size = sizeof(options);
  options.control_socket = place.control_socket.c_str();
  options.data_socket = place.data_socket.c_str();
  options.deadline_ms = place.deadline_ms;
  kvasir_session* session = nullptr;
  if (kvasir_connect(&options, &session, error) == KVASIR_OK) return OwnedSession(session);
  const std::string why = error->text;
  (void)std::snprintf(error->text, sizeof(error->text),
                      "no session with kvasird: %s: KVASIR_CONTROL_SOCKET=%s", why.c_str(),
                      place.control_socket.c_str());
  return nullptr;
}

std::unique_ptr<DaemonBuffer> DaemonBuffer::Create(const DaemonPlace& place, size_t bytes,
                                                   std::string* error) {
  std::unique_ptr<DaemonBuffer> buffer(new DaemonBuffer);
  buffer->row_bytes_ = bytes > kLargeBytes ? kLargeRowBytes : kSmallRowBytes;
  const uint64_t blocks = (bytes + buffer->block_bytes() - 1) / buffer->block_bytes();
  if (bytes == 0 || blocks > (uint64_t{1} << 20)) {
    *error = "a buffer of " + std::to_string(bytes) + " bytes cannot be had";
    return nullptr;
  }
  buffer->bytes_ = bytes;
  buffer->rows_ = static_cast<uint32_t>(blocks) * kSlots;
  *error = buffer->Open(place);
  if (error->empty()) *error = buffer->MapBlocks();
  return error->empty() ? std::move(buffer) : nullptr;
}

std::string DaemonBuffer::Open(const DaemonPlace& place) {
  kvasir_error why{};
  session_ = ConnectTo(place, &why);
  if (session_ == nullptr) return why.text;

  // One layer whose K row is the share of a slot, and no V: so a block is one piece.
  kvasir_layer layer{};
  layer.kv_heads = row_bytes_ / kSmallRowBytes;
  layer.k_head_dim = kSmallRowBytes / 2;
  static constexpr char kDigest[] = "llama.cpp buffer";  // 16 bytes: no model's
  kvasir_model_spec spec{};
  spec.struct_size = sizeof(spec);
  spec.name = "llama.cpp buffer";
  spec.kv_type = KVASIR_F16;
  spec.layers = &layer;
  spec.layer_count = 1;
  spec.vocabulary_size = 1;
  spec.slots_per_block = kSlots;
  spec.weights_digest = {kDigest, sizeof(kDigest) - 1};
  kvasir_model model{};
  if (kvasir_register_model(session_.get(), &spec, &model, &why) != KVASIR_OK) return why.text;

  const std::string label = "llama.cpp buffer of " + Mebibytes(bytes_);
  kvasir_open_options open{};
  open.struct_size = sizeof(open);
  open.model = &model;
  open.retention = "full";
  open.label = label.c_str();
  open.max_rows = rows_;
  kvasir_sequence* sequence = nullptr;
  const kvasir_code code = kvasir_open(session_.get(), &open, &sequence, &why);
  sequence_.reset(sequence);
  if (code != KVASIR_OK) return why.text;
  for (uint32_t rows = 0; rows < rows_;) {
    const uint32_t want = std::min(rows_, rows + kBlocksAtOnce * kSlots);
    kvasir_step step{};
    if (kvasir_begin(sequence, want, &step, &why) != KVASIR_OK) return why.text;
    if (step.count < want) {  // at the tenant's limit, or the pool's end
      return "kvasird has " + Mebibytes(uint64_t{step.count} * row_bytes_) + " of the " +
             Mebibytes(bytes_) +
             " that llama.cpp asks for: raise the tenant's limit or take a smaller context";
    }
    rows = want;
  }
  return "";
}

std::string DaemonBuffer::MapBlocks() {
  kvasir_step step{};
  kvasir_error why{};
  if (kvasir_begin(sequence_.get(), rows_, &step, &why) != KVASIR_OK) return why.text;
  const kvasir_layer_view& view = step.layers[0];
  const size_t window_bytes = uint64_t{rows_} * row_bytes_;
  void* const window =
      ::mmap(nullptr, window_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (window == MAP_FAILED) return "no address space for " + Mebibytes(window_bytes);
  window_ = static_cast<std::byte*>(window);
  for (uint64_t i = 0; i < rows_ / kSlots; ++i) {
    // With an old size of 0 a shared mapping stays and is mapped once more: the library keeps its
    // own, and nobody needs the descriptor.
    const void* const got = ::mremap(view.recent[i].k, 0, block_bytes(),
                                     MREMAP_MAYMOVE | MREMAP_FIXED, window_ + i * block_bytes());
    if (got == MAP_FAILED) {
      return std::string("a block cannot be mapped: ") + std::strerror(errno) +
             ": block=" + std::to_string(i);
    }
  }
  return "";
}

DaemonBuffer::~DaemonBuffer() {
  // Before the blocks go back, so that nothing is written into what is somebody else's by then.
  if (window_ != nullptr) ::munmap(window_, uint64_t{rows_} * row_bytes_);
}

std::string DaemonBuffer::WhyLost() {
  const std::scoped_lock lock(mutex_);
  kvasir_step step{};
  kvasir_error why{};
  // All rows are granted, so this asks nobody.
  return kvasir_begin(sequence_.get(), rows_, &step, &why) == KVASIR_OK ? "" : why.text;
}

}  // namespace kvasir::llama_cpp
