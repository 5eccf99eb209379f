// DaemonFixture: a Server in this process, on sockets in a folder of its own, with a small pool.
#ifndef KVASIR_TESTS_SUPPORT_DAEMON_FIXTURE_H_
#define KVASIR_TESTS_SUPPORT_DAEMON_FIXTURE_H_

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "client/session.h"
#include "daemon/config.h"
#include "daemon/server.h"

namespace kvasir::testing {

// A folder under the temporary directory, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One tenant, "test", with this process's uid. Every test ends with a check that no byte is lost.
class DaemonFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  Config MakeConfig() const;
  void StartServer(const Config& config);
  ConnectOptions MakeConnectOptions() const;
  std::unique_ptr<Session> Connect();

  // Waits until every session is gone and nothing is charged, at most two seconds.
  void ExpectNothingCharged();
  uint64_t HeldBytes();

  TemporaryFolder folder_;
  std::unique_ptr<Server> server_;
};

// A small model: `layers` layers of 2 kv heads x 16 elements in f16, vocabulary 1000, separators 1
// and 2.
ModelSpec TinySpec(uint32_t layers);

// The value that element `e` of the row of `row` in `layer` has in tests (plane 0 K, 1 V); f16 bits
// of a small integer, so that it survives nothing but a plain copy.
uint16_t TestElement(uint64_t row, uint32_t layer, uint32_t plane, uint32_t e);

// Writes the test rows of a step into every layer.
void WriteTestRows(const StepView& step, const ModelSpec& spec);

// Rows that the query of `row` sees in `layer`, ascending, after checking that K and V of each hold
// the test elements; kept rows by their trailer's positions.
std::vector<uint64_t> VisibleRows(const LayerView& view, uint64_t row, uint32_t layer,
                                  const ModelSpec& spec);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_SUPPORT_DAEMON_FIXTURE_H_
