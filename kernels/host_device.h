// KVASIR_HOST_DEVICE: functions that nvcc compiles for the GPU as well. Nothing where g++ or clang
// compile: then they are functions like any other.
#ifndef KVASIR_KERNELS_HOST_DEVICE_H_
#define KVASIR_KERNELS_HOST_DEVICE_H_

#ifdef __CUDACC__
#define KVASIR_HOST_DEVICE __host__ __device__
#else
#define KVASIR_HOST_DEVICE
#endif

#endif  // KVASIR_KERNELS_HOST_DEVICE_H_
