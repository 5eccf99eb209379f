// What programs that fuzz a state machine read their steps from.
#ifndef KVASIR_TESTS_FUZZ_FUZZ_INPUT_H_
#define KVASIR_TESTS_FUZZ_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace kvasir::fuzz {

// A finding, also where asserts are off.
inline void Require(bool condition) {
  if (!condition) std::abort();
}

// Bytes, taken from the front; zeros where there are no more.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint64_t Number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes && size_ > 0; ++i, --size_) value |= uint64_t{*data_++} << (8 * i);
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace kvasir::fuzz

#endif  // KVASIR_TESTS_FUZZ_FUZZ_INPUT_H_
