// KVASIR_HOST_DEVICE: functions that nvcc compiles for the GPU as well. KVASIR_DEVICE_UNROLL: loops
// whose arrays are to be registers there. Nothing where g++ or clang compile.
#ifndef KVASIR_KERNELS_HOST_DEVICE_H_
#define KVASIR_KERNELS_HOST_DEVICE_H_

#ifdef __CUDACC__
#define KVASIR_HOST_DEVICE __host__ __device__
#else
#define KVASIR_HOST_DEVICE
#endif

// nvcc has the host's half of a file compiled by g++, which does not know the pragma.
#ifdef __CUDA_ARCH__
#define KVASIR_DEVICE_UNROLL _Pragma("unroll")
#else
#define KVASIR_DEVICE_UNROLL
#endif

#endif  // KVASIR_KERNELS_HOST_DEVICE_H_
