// Memory that ends where nothing may be read or written any more.
#ifndef KVASIR_TESTS_KERNELS_ENCODING_GUARDED_H_
#define KVASIR_TESTS_KERNELS_ENCODING_GUARDED_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <string>

#include "base/check.h"

namespace kvasir::kernels::test {

// `size` bytes; the page behind the last one is not there. They start at any address.
class Guarded {
 public:
  explicit Guarded(size_t size) : size_(size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t inside = (size + page - 1) / page * page;
    mapped_ = inside + page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    KVASIR_CHECK(base_ != MAP_FAILED, "no memory for {} bytes", mapped_);
    KVASIR_CHECK(mprotect(static_cast<std::byte*>(base_) + inside, page, PROT_NONE) == 0,
                 "no guard behind {} bytes", inside);
    data_ = static_cast<std::byte*>(base_) + inside - size;
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  std::byte* data() { return data_; }
  size_t size() const { return size_; }
  std::string Text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  size_t size_;
  size_t mapped_ = 0;
  void* base_ = nullptr;
  std::byte* data_ = nullptr;
};

}  // namespace kvasir::kernels::test

#endif  // KVASIR_TESTS_KERNELS_ENCODING_GUARDED_H_
