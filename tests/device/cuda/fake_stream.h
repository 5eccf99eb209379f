// Streams of the driver that stands in for CUDA's: threads. Thread-safe.
#ifndef KVASIR_TESTS_DEVICE_CUDA_FAKE_STREAM_H_
#define KVASIR_TESTS_DEVICE_CUDA_FAKE_STREAM_H_

#include <functional>

struct CUstream_st;

namespace kvasir::device {

// Puts work behind what is in the stream.
void PutOnFakeStream(CUstream_st* stream, std::function<void()> work);

}  // namespace kvasir::device

#endif  // KVASIR_TESTS_DEVICE_CUDA_FAKE_STREAM_H_
