// DaemonBuffer: one contiguous piece of the tenant's memory, for tensors of an engine that knows
// nothing of blocks.
#ifndef KVASIR_CLIENT_LLAMA_CPP_DAEMON_BUFFER_H_
#define KVASIR_CLIENT_LLAMA_CPP_DAEMON_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "client/c/kvasir.h"

namespace kvasir::llama_cpp {

// Where the daemon is.
struct DaemonPlace {
  std::string control_socket;
  std::string data_socket;
  uint64_t deadline_ms = 0;  // of every call; 0: as kvasir_connect_options
};

// What is null comes from KVASIR_CONTROL_SOCKET and KVASIR_DATA_SOCKET; a data socket that is named
// nowhere lies beside the control socket, by its usual name.
DaemonPlace FindDaemon(const char* control_socket = nullptr, const char* data_socket = nullptr);

struct SessionCloser {
  void operator()(kvasir_session* session) const { kvasir_disconnect(session); }
};
using OwnedSession = std::unique_ptr<kvasir_session, SessionCloser>;

struct SequenceCloser {
  void operator()(kvasir_sequence* sequence) const { (void)kvasir_close(sequence, nullptr); }
};
using OwnedSequence = std::unique_ptr<kvasir_sequence, SequenceCloser>;

// Null with the reason, which names the socket, in `error`.
OwnedSession ConnectTo(const DaemonPlace& place, kvasir_error* error);

// The memory is the recent blocks of a sequence that never commits a row, in a session of its own:
// what an engine frees is uncharged at once, and a process that dies leaves nothing. The blocks are
// mapped a second time, one behind the other. Thread-safe.
class DaemonBuffer {
 public:
  // Null with the reason, in one line, in `error`. Cost: a session, and one mapping a block of 2 to
  // 16 MiB; no page is touched.
  static std::unique_ptr<DaemonBuffer> Create(const DaemonPlace& place, size_t bytes,
                                              std::string* error);
  ~DaemonBuffer();
  DaemonBuffer(const DaemonBuffer&) = delete;
  DaemonBuffer& operator=(const DaemonBuffer&) = delete;

  std::byte* data() const { return window_; }  // page-aligned
  size_t bytes() const { return bytes_; }

  // "" while the memory is this buffer's; else why it is not. A daemon that has died takes nothing.
  // Cost: two loads and a lock.
  std::string WhyLost();

 private:
  DaemonBuffer() = default;
  // The reason, in one line, or "".
  std::string Open(const DaemonPlace& place);
  std::string MapBlocks();
  uint64_t block_bytes() const { return uint64_t{row_bytes_} * kSlots; }

  // The least that a model may have: so a block is the smallest.
  static constexpr uint32_t kSlots = 16;

  OwnedSession session_;
  OwnedSequence sequence_;
  uint32_t row_bytes_ = 0;
  uint32_t rows_ = 0;
  size_t bytes_ = 0;
  std::byte* window_ = nullptr;
  std::mutex mutex_;  // of `sequence_`, once it is open
};

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_DAEMON_BUFFER_H_
