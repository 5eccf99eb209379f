// HandoverDaemonTest: a kvasird whose service manager keeps its descriptors, and what the index in
// one of them says.
#ifndef KVASIR_TESTS_SUPPORT_HANDOVER_DAEMON_H_
#define KVASIR_TESTS_SUPPORT_HANDOVER_DAEMON_H_

#include <memory>
#include <string>
#include <vector>

#include "daemon/handover/handover_index.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {

class HandoverDaemonTest : public TierDaemonTest {
 protected:
  Config HandoverConfig() const;

  // The kept index, opened through a duplicate; fails the test where there is not exactly one.
  std::unique_ptr<HandoverIndex> OpenIndex();
  // Waits until that many prefixes are written down.
  void WaitForRecords(size_t count);
  // Waits until so many prefixes lie there.
  void WaitForPrefixes(const std::string& place, size_t count);
  // A new session publishes it.
  void Publish(const std::vector<uint32_t>& prompt, const std::string& retention = "full");
  // The rows that a new session finds, all of them right.
  uint64_t Found(const std::vector<uint32_t>& prompt, const std::string& retention = "full");
  // SIGKILL, and another one.
  void KillAndStart();

  uint32_t layers_ = 2;  // of the model of Publish() and Found()
  TierDaemon daemon_{folder_.path(), HandoverConfig()};
  FdKeeper& keeper_ = daemon_.KeepDescriptors();
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_HANDOVER_DAEMON_H_
