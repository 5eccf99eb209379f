// FdKeeper: the part of a service manager that keeps descriptors while a service is not there, as
// systemd does for FDSTORE and FDSTOREREMOVE (sd_notify(3)).
#ifndef KVASIR_TESTS_SUPPORT_FD_KEEPER_H_
#define KVASIR_TESTS_SUPPORT_FD_KEEPER_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/posix.h"

namespace kvasir::testing {

// A message to NOTIFY_SOCKET: its text and what came with it.
struct Notification {
  std::string text;
  std::vector<UniqueFd> fds;
};
// Does not wait; empty text: there is none.
Notification ReceiveNotification(const UniqueFd& socket);

// Thread-safe. Reads the socket, which it borrows, on a thread of its own.
class FdKeeper {
 public:
  explicit FdKeeper(const UniqueFd& socket);
  ~FdKeeper();
  FdKeeper(const FdKeeper&) = delete;
  FdKeeper& operator=(const FdKeeper&) = delete;

  // The next message about anything else; "" when `life` has become readable without one.
  std::string Next(const UniqueFd& life);

  // Everything that was sent before has been read.
  void Catch();
  std::vector<std::string> Names();
  size_t Count(const std::string& prefix);  // of names that begin like this
  // Duplicates of all, above descriptor 1000, by name, in the order in which they came.
  std::vector<std::pair<std::string, UniqueFd>> Duplicates();
  // Loses one, as if it had never come.
  void Lose(const std::string& name);
  void Add(const std::string& name, UniqueFd fd);
  // Puts another in its place.
  void Replace(const std::string& name, UniqueFd fd);

 private:
  void Loop();
  void Take(Notification message);

  const UniqueFd& socket_;
  UniqueFd stop_;
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<std::pair<std::string, UniqueFd>> kept_;  // guarded by mutex_
  std::deque<std::string> others_;                      // likewise
  std::thread thread_;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_FD_KEEPER_H_
