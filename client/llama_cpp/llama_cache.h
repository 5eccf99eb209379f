// LlamaCache: rows of a llama.cpp context's sequences, to and from the daemon.
#ifndef KVASIR_CLIENT_LLAMA_CPP_LLAMA_CACHE_H_
#define KVASIR_CLIENT_LLAMA_CPP_LLAMA_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "client/c/kvasir.h"
#include "client/llama_cpp/daemon_buffer.h"
#include "client/llama_cpp/kvasir_llama.h"
#include "client/llama_cpp/plugin_hooks.h"
#include "client/llama_cpp/query_watch.h"
#include "client/llama_cpp/state_image.h"
#include "client/llama_cpp/state_layout.h"

struct llama_context;

namespace kvasir::llama_cpp {

// Not thread-safe. Errors of its methods: kvasir_llama.h.
class LlamaCache {
 public:
  explicit LlamaCache(llama_context* context) : context_(context) {}

  kvasir_code Open(const kvasir_llama_options& options, kvasir_error* error);
  kvasir_code Save(int32_t sequence, std::span<const uint32_t> tokens, size_t* rows,
                   kvasir_error* error);
  kvasir_code Attach(int32_t sequence, std::span<const uint32_t> tokens, size_t* rows,
                     kvasir_error* error);
  kvasir_code Compact(int32_t sequence, std::span<const uint32_t> tokens,
                      const std::string& retention, size_t* rows, kvasir_error* error);

  kvasir_code Select(int32_t sequence, std::span<const uint32_t> tokens,
                     const std::string& retention, const QueryWatch& watch,
                     std::span<int32_t> positions, size_t* rows, kvasir_error* error);

  const std::string& layout_text() const { return layout_text_; }
  bool is_direct() const { return capture_ != nullptr; }

 private:
  // A sequence that was compacted: the daemon holds what stays of its first rows.
  struct Compacted {
    OwnedSequence rows;
    std::string retention;
    std::vector<uint32_t> tokens;
  };

  // Decodes a token where nothing is, to see how its rows lie and what the model makes of it.
  kvasir_code Probe(int32_t sequence, std::string* digest, kvasir_error* error);
  kvasir_code Register(const kvasir_llama_options& options, const std::string& digest,
                       kvasir_error* error);
  // The watch's query as selection wants it: [kv_head][dim], summed over the query heads of each.
  kvasir_code QueryOf(const QueryWatch& watch, int64_t layer, std::vector<float>* query,
                      kvasir_error* error) const;
  // Copies the rows of `tokens` that the daemon's sequence does not have yet.
  kvasir_code CopyToDaemon(int32_t sequence, std::span<const uint32_t> tokens, kvasir_sequence* to,
                           kvasir_error* error);
  // Makes what the next row of `from` sees the content of `sequence`. `rows`: how many.
  kvasir_code CopyFromDaemon(kvasir_sequence* from, int32_t sequence, size_t* rows,
                             kvasir_error* error);

  llama_context* const context_;
  OwnedSession session_;
  StateLayout layout_;  // of the probe's one cell
  std::string layout_text_;
  std::string salt_;
  kvasir_model model_{};
  kvasir_capture_transfers_fn capture_ = nullptr;  // null: the plug-in does not hold the cache
  std::map<int32_t, Compacted> compacted_;         // by sequence of llama.cpp
};

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_LLAMA_CACHE_H_
