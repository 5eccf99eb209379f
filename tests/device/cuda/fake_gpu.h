// What the driver that stands in for CUDA's says of its only GPU.
#ifndef KVASIR_TESTS_DEVICE_CUDA_FAKE_GPU_H_
#define KVASIR_TESTS_DEVICE_CUDA_FAKE_GPU_H_

namespace kvasir::device {

// From now on; its compute capability is this and .1. At first 9. Thread-safe.
void SetFakeComputeMajor(int major);

}  // namespace kvasir::device

#endif  // KVASIR_TESTS_DEVICE_CUDA_FAKE_GPU_H_
