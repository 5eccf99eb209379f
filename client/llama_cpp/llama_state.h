// llama.cpp's calls for the state of a sequence, with rows left where they are.
#ifndef KVASIR_CLIENT_LLAMA_CPP_LLAMA_STATE_H_
#define KVASIR_CLIENT_LLAMA_CPP_LLAMA_STATE_H_

#include <cstdint>
#include <optional>

#include "client/llama_cpp/plugin_hooks.h"
#include "client/llama_cpp/state_image.h"

struct llama_context;

namespace kvasir::llama_cpp {

// The plug-in's hook; null: it is not loaded, or of another version.
kvasir_capture_transfers_fn FindHook();

// The state of a sequence. With `capture` llama.cpp copies no row that the plug-in holds: the image
// knows where they are. Nothing where llama.cpp gives none.
std::optional<StateImage> GetState(llama_context* context, int32_t sequence,
                                   kvasir_capture_transfers_fn capture);

// Makes `image` the state of `sequence`. With `capture` its rows are to be written afterwards, else
// before. False: llama.cpp refuses it, and the sequence is empty.
bool SetState(llama_context* context, int32_t sequence, StateImage& image,
              kvasir_capture_transfers_fn capture);

}  // namespace kvasir::llama_cpp

#endif  // KVASIR_CLIENT_LLAMA_CPP_LLAMA_STATE_H_
