// The C ABI: a program in C runs against a daemon, and the library exports kvasir.h and no more.
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/small_file.h"
#include "client/c/kvasir.h"
#include "client/view.h"
#include "tests/support/child_process.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

class ClientCTest : public DaemonFixture, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, ClientCTest, ::testing::Values("ring", "grpc"));

TEST_P(ClientCTest, AProgramInCRuns) {
  ChildProcess engine({SiblingProgram("c_engine"), folder_.path() + "/control.sock",
                       folder_.path() + "/data.sock", GetParam()},
                      {});
  const std::string said = engine.ReadErrors();
  EXPECT_EQ(engine.ReadLine().value_or(""), "ok") << said;
  EXPECT_EQ(engine.Wait(), 0) << said;
  // What it has published goes, so that nothing is left.
  v1::DropPrefixesResponse response;
  EXPECT_TRUE(RawCalls(folder_.path() + "/control.sock", "")
                  .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
                  .ok());
}

std::vector<std::string> LinesOf(const std::vector<std::string>& argv) {
  ChildProcess process(argv, {});
  std::vector<std::string> lines;
  while (std::optional<std::string> line = process.ReadLine()) lines.push_back(*std::move(line));
  EXPECT_EQ(process.Wait(), 0) << process.ReadErrors();
  return lines;
}

// Names of the functions in a header.
std::set<std::string> Declared(const std::string& name) {
  const absl::StatusOr<std::string> header =
      ReadSmallFile(KVASIR_SOURCE_DIR "/client/c/" + name, 1 << 20);
  EXPECT_TRUE(header.ok());
  std::set<std::string> names;
  for (size_t at = header->find("KVASIR_API "); at != std::string::npos;
       at = header->find("KVASIR_API ", at + 1)) {
    const size_t end = header->find('(', at);
    const std::string words = header->substr(at, end - at);
    if (words.find("kvasir_") == std::string::npos) continue;  // its own definition
    names.insert(words.substr(words.find_last_of(" *") + 1));
  }
  return names;
}

TEST(ClientCLibrary, ExportsEachHeaderUnderItsVersionAndNoMore) {
  std::map<std::string, std::set<std::string>> exported;  // by version
  for (const std::string& line : LinesOf(
           {"/usr/bin/nm", "-D", "--defined-only", "--with-symbol-versions", KVASIR_C_LIBRARY})) {
    std::istringstream words(line);
    std::string address, type, name;
    words >> address >> type >> name;
    if (type == "A") continue;  // a version itself
    const size_t version = name.find("@@");
    ASSERT_NE(version, std::string::npos) << line;
    EXPECT_EQ(type, "T") << line;
    exported[name.substr(version + 2)].insert(name.substr(0, version));
  }
  EXPECT_EQ(exported.size(), 4U);
  EXPECT_EQ(exported["KVASIR_1"], Declared("kvasir.h"));
  EXPECT_EQ(exported["KVASIR_2"], Declared("kvasir_tenant.h"));
  EXPECT_EQ(exported["KVASIR_3"], Declared("kvasir_device.h"));
  EXPECT_EQ(exported["KVASIR_4"], Declared("kvasir_async.h"));
  EXPECT_EQ(exported["KVASIR_1"].size(), 30U) << "programs that are built already need these";
  EXPECT_EQ(exported["KVASIR_2"].size(), 20U) << "and these";
  EXPECT_EQ(exported["KVASIR_3"].size(), 8U) << "and these";
}

// What view_layout.h takes for granted of a span.
TEST(ClientCLibrary, ASpanIsItsPointerAndItsSize) {
  const uint64_t rows[3] = {1, 2, 3};
  LayerView view;
  view.sticky = rows;
  kvasir_layer_view same;
  std::memcpy(&same, static_cast<const void*>(&view), sizeof(same));
  EXPECT_EQ(same.sticky, rows);
  EXPECT_EQ(same.sticky_count, 3U);
  EXPECT_EQ(same.kept_count, 0U);
}

}  // namespace
}  // namespace kvasir::testing
