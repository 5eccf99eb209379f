// Where the tests of this folder run their kernels: two libraries define these functions. One walks
// the grid on the CPU, thread by thread and phase by phase, in every build; the other launches the
// real kernels. The tests do not know which.
#ifndef KVASIR_TESTS_KERNELS_CUDA_MACHINE_H_
#define KVASIR_TESTS_KERNELS_CUDA_MACHINE_H_

#include <cstddef>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/convert_rows.h"
#include "kernels/cuda/copy_rows.h"
#include "kernels/cuda/dot_keys.h"
#include "kernels/cuda/int_records.h"
#include "kernels/cuda/move_planes.h"
#include "kernels/cuda/pool_scores.h"
#include "kernels/cuda/rope_table.h"
#include "kernels/cuda/rotate_rows.h"
#include "kernels/cuda/top_k.h"
#include "kernels/cuda/window_mass.h"

namespace kvasir::kernels::cuda::machine {

// Why nothing can run here; empty where it can.
std::string Missing();

// Memory of the machine, aligned to 256 bytes. A failure of memory or of a copy ends the test
// program.
std::byte* Allocate(size_t bytes);
void Free(std::byte* at);
void Upload(std::byte* to, const void* from, size_t bytes);
void Download(void* to, const std::byte* from, size_t bytes);

// Each runs and waits for the end; errors are those of the function and of the run.
absl::Status Execute(const RowCopy& copy);
absl::Status Execute(const PlaneMove& move);
absl::Status Execute(const RowRotation& rotation);
absl::Status Execute(const RecordEncoding& encoding);
absl::Status Execute(const RecordDecoding& decoding);
absl::Status Execute(const RowConversion& conversion);
absl::Status Execute(const KeyDots& dots);
absl::Status Execute(const KeyMass& mass);  // scratch is the machine's
absl::Status Execute(const ScorePooling& pooling);
absl::Status Execute(const ScoreSelection& selection);  // likewise

// Values in the machine's memory.
template <class T>
class Array {
 public:
  explicit Array(const std::vector<T>& values, size_t offset = 0)
      : size_(values.size()), offset_(offset), at_(Allocate(size_ * sizeof(T) + offset)) {
    Upload(bytes(), values.data(), size_ * sizeof(T));
  }
  ~Array() { Free(at_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  std::byte* bytes() const { return at_ + offset_; }
  T* data() const { return reinterpret_cast<T*>(bytes()); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    Download(values.data(), bytes(), size_ * sizeof(T));
    return values;
  }

 private:
  size_t size_;
  size_t offset_;  // bytes before the first value
  std::byte* at_;
};

// A table of turns in the machine's memory.
class Ropes {
 public:
  explicit Ropes(const RopeNumbers& numbers)
      : entries_(numbers.entries), frequencies_(numbers.frequencies) {
    table_ = {entries_.data(), frequencies_.data(), numbers.pairs, numbers.highs};
  }
  const RopeTable& table() const { return table_; }

 private:
  Array<float> entries_;
  Array<double> frequencies_;
  RopeTable table_;
};

// Skips where nothing can run.
class Test : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string missing = Missing(); !missing.empty()) {
      GTEST_SKIP() << missing;
    }
  }
};

}  // namespace kvasir::kernels::cuda::machine

#endif  // KVASIR_TESTS_KERNELS_CUDA_MACHINE_H_
