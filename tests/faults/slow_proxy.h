// SlowProxy: stands on a Unix socket before a server on another one and hands bytes on; those that
// the server answers as slowly as the test says.
//
// Thread-safe. Two threads a connection, joined when it is destroyed.
#ifndef KVASIR_TESTS_FAULTS_SLOW_PROXY_H_
#define KVASIR_TESTS_FAULTS_SLOW_PROXY_H_

#include <cstdint>
#include <list>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "base/posix.h"

namespace kvasir::testing {

class SlowProxy {
 public:
  enum class Pace {
    kAtOnce,
    kTrickle,  // a byte each millisecond
    kHeld,     // not at all
  };

  SlowProxy(std::string socket, std::string server);
  ~SlowProxy();
  SlowProxy(const SlowProxy&) = delete;
  SlowProxy& operator=(const SlowProxy&) = delete;

  const std::string& socket() const { return socket_; }

  // Of answers from now on.
  void SetPace(Pace pace);
  // Connections of which an answer is held and whose client waits for it still.
  uint64_t Waiting();
  // Bytes of answers that were handed on.
  uint64_t answered();

 private:
  struct Link {
    UniqueFd client, server;
    bool waits = false;  // an answer for its client is held
    std::thread up, down;
  };
  void Accept();
  void HandUp(Link& link);
  void HandDown(Link& link);
  // Gives `bytes` to the client at the pace; false when it has hung up.
  bool Answer(Link& link, const char* data, size_t bytes);

  const std::string socket_, server_;
  UniqueFd listener_;
  Mutex mutex_;
  CondVar changed_;
  Pace pace_ ABSL_GUARDED_BY(mutex_) = Pace::kAtOnce;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Link> links_ ABSL_GUARDED_BY(mutex_);
  std::thread accepting_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_FAULTS_SLOW_PROXY_H_
