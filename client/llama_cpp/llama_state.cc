#include "client/llama_cpp/llama_state.h"

#include <ggml-backend.h>
#include <llama.h>

namespace kvasir::llama_cpp {
namespace {

// Copies are noted while it lives.
class CaptureScope {
 public:
  CaptureScope(kvasir_capture_transfers_fn capture, StateImage& image) : capture_(capture) {
    if (capture_ != nullptr) capture_(StateImage::NoteTransfer, &image);
  }
  ~CaptureScope() {
    if (capture_ != nullptr) capture_(nullptr, nullptr);
  }
  CaptureScope(const CaptureScope&) = delete;
  CaptureScope& operator=(const CaptureScope&) = delete;

 private:
  const kvasir_capture_transfers_fn capture_;
};

}  // namespace

kvasir_capture_transfers_fn FindHook() {
  ggml_backend_reg_t plugin = ggml_backend_reg_by_name("KVASIR");
  if (plugin == nullptr) return nullptr;
  void* const hook = ggml_backend_reg_get_proc_address(plugin, KVASIR_CAPTURE_TRANSFERS);
  return reinterpret_cast<kvasir_capture_transfers_fn>(hook);
}

std::optional<StateImage> GetState(llama_context* context, int32_t sequence,
                                   kvasir_capture_transfers_fn capture) {
  const size_t bytes = llama_state_seq_get_size(context, sequence);
  if (bytes == 0) return std::nullopt;
  std::optional<StateImage> image = StateImage::OfSize(bytes);
  if (!image) return std::nullopt;
  const CaptureScope scope(capture, *image);
  auto* const to = reinterpret_cast<uint8_t*>(image->bytes().data());
  if (llama_state_seq_get_data(context, to, bytes, sequence) != bytes) return std::nullopt;
  return image;
}

bool SetState(llama_context* context, int32_t sequence, StateImage& image,
              kvasir_capture_transfers_fn capture) {
  image.ForgetTransfers();
  const CaptureScope scope(capture, image);
  const auto* const from = reinterpret_cast<const uint8_t*>(image.bytes().data());
  const size_t bytes = image.bytes().size();
  return llama_state_seq_set_data(context, from, bytes, sequence) == bytes;
}

}  // namespace kvasir::llama_cpp
