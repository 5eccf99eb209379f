#include "allocator/tier/block_io.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/posix.h"

#include <liburing.h>

namespace kvasir {
namespace {

int SyncData(int fd) {
  while (::fdatasync(fd) != 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

class UringQueue final : public IoQueue {
 public:
  // 0 or minus errno.
  int Open(uint32_t depth) {
    depth_ = depth;
    const int error = ::io_uring_queue_init(depth, &ring_, 0);
    open_ = error == 0;
    return error;
  }
  UringQueue() = default;
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;
  ~UringQueue() override {
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  bool Submit(const IoRequest& request) override {
    if (in_flight_ == depth_) return false;
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) return false;
    const auto count = static_cast<unsigned>(request.parts.size());
    if (request.write) {
      ::io_uring_prep_writev(entry, request.fd, request.parts.data(), count, request.offset);
    } else {
      ::io_uring_prep_readv(entry, request.fd, request.parts.data(), count, request.offset);
    }
    ::io_uring_sqe_set_data64(entry, request.tag);
    ++in_flight_;
    // An error leaves the entry in the ring, and Wait() submits it again.
    (void)::io_uring_submit(&ring_);
    return true;
  }

  IoDone Wait() override {
    KVASIR_CHECK(in_flight_ > 0, "a wait with nothing in flight");
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) != 0) {
      const int error = ::io_uring_submit_and_wait(&ring_, 1);
      // Anything else would leave the kernel with memory that nobody waits for.
      KVASIR_CHECK(error >= 0 || error == -EINTR || error == -EAGAIN || error == -EBUSY,
                   "io_uring_enter failed: errno={}", -error);
    }
    const IoDone done = {::io_uring_cqe_get_data64(entry), entry->res};
    ::io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    return done;
  }

 private:
  io_uring ring_{};
  uint32_t depth_ = 0;
  uint32_t in_flight_ = 0;
  bool open_ = false;
};

class PlainQueue final : public IoQueue {
 public:
  explicit PlainQueue(uint32_t depth) : depth_(depth) {}

  bool Submit(const IoRequest& request) override {
    if (done_.size() == depth_) return false;
    const auto count = static_cast<int>(request.parts.size());
    const auto offset = static_cast<off_t>(request.offset);
    int64_t moved = 0;
    do {
      moved = request.write ? ::pwritev(request.fd, request.parts.data(), count, offset)
                            : ::preadv(request.fd, request.parts.data(), count, offset);
    } while (moved < 0 && errno == EINTR);
    done_.push_back({request.tag, moved < 0 ? -errno : moved});
    return true;
  }

  IoDone Wait() override {
    KVASIR_CHECK(!done_.empty(), "a wait with nothing in flight");
    const IoDone done = done_.front();
    done_.pop_front();
    return done;
  }

 private:
  const uint32_t depth_;
  std::deque<IoDone> done_;
};

class PlainIo final : public BlockIo {
 public:
  absl::StatusOr<std::unique_ptr<IoQueue>> OpenQueue(uint32_t depth) override {
    return std::make_unique<PlainQueue>(depth);
  }
  int Sync(int fd) override { return SyncData(fd); }
};

class UringIo final : public BlockIo {
 public:
  absl::StatusOr<std::unique_ptr<IoQueue>> OpenQueue(uint32_t depth) override {
    auto queue = std::make_unique<UringQueue>();
    if (const int error = queue->Open(depth); error != 0) {
      return ErrnoStatus(-error, "io_uring_queue_init");
    }
    return queue;
  }
  int Sync(int fd) override { return SyncData(fd); }
};

}  // namespace

std::unique_ptr<BlockIo> MakePlainIo() { return std::make_unique<PlainIo>(); }

std::unique_ptr<BlockIo> MakeSystemIo() {
  const int error = UringQueue().Open(1);
  if (error == 0) return std::make_unique<UringIo>();
  static const bool said = [error] {
    spdlog::warn("io_uring cannot be used; disk reads and writes go one by one: errno={} text={}",
                 -error, std::strerror(-error));
    return true;
  }();
  (void)said;
  return MakePlainIo();
}

}  // namespace kvasir
