// Memory of one node: what the kernel says of an extent's pages, and where threads run.
#include "allocator/numa_node.h"

#include <errno.h>

#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/extent.h"
#include "allocator/host_pool.h"
#include "base/bytes.h"
#include "base/error.h"

#include <numa.h>
#include <numaif.h>
#include <sched.h>

namespace kvasir {
namespace {

constexpr uint64_t kPages = 16;

std::unique_ptr<Extent> MakeOn(int node) {
  Extent::Options options;
  options.bytes = kPages * kPageBytes;
  options.numa_node = node;
  absl::StatusOr<std::unique_ptr<Extent>> extent = Extent::Create(options, 1);
  EXPECT_TRUE(extent.ok()) << MessageOf(extent.status());
  return extent.ok() ? *std::move(extent) : nullptr;
}

struct Policy {
  int mode = -1;
  unsigned long nodes = 0;
};

// False: the kernel does not tell.
bool PolicyOf(const Extent& extent, Policy* policy) {
  return ::get_mempolicy(&policy->mode, &policy->nodes, sizeof(policy->nodes) * 8 + 1,
                         extent.data(), MPOL_F_ADDR) == 0;
}

// Of each page; empty: the kernel does not tell.
std::vector<int> NodesOf(const Extent& extent) {
  std::vector<void*> pages;
  for (uint64_t i = 0; i < kPages; ++i) pages.push_back(extent.data() + i * kPageBytes);
  std::vector<int> nodes(kPages, -1);
  const bool told = ::move_pages(0, kPages, pages.data(), nullptr, nodes.data(), 0) == 0;
  return told ? nodes : std::vector<int>();
}

class NumaNodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::numa_available() < 0) GTEST_SKIP() << "this kernel has no NUMA policies";
    Policy policy;
    if (!PolicyOf(*MakeOn(-1), &policy)) GTEST_SKIP() << "get_mempolicy: errno=" << errno;
  }
};

TEST_F(NumaNodeTest, AnExtentOfANodeIsBoundToIt) {
  Policy policy;
  ASSERT_TRUE(PolicyOf(*MakeOn(-1), &policy));
  EXPECT_EQ(policy.mode, MPOL_DEFAULT);
  const std::unique_ptr<Extent> extent = MakeOn(0);
  ASSERT_TRUE(PolicyOf(*extent, &policy));
  EXPECT_EQ(policy.mode, MPOL_BIND);
  EXPECT_EQ(policy.nodes, 1U);
}

TEST_F(NumaNodeTest, ItsPagesAreThere) {
  const int node = ::numa_max_node();
  const std::unique_ptr<Extent> extent = MakeOn(node);
  ASSERT_NE(extent, nullptr);
  const std::vector<int> nodes = NodesOf(*extent);
  if (nodes.empty()) GTEST_SKIP() << "move_pages: errno=" << errno;
  EXPECT_EQ(nodes, std::vector<int>(kPages, node));
}

TEST_F(NumaNodeTest, WhatAPoolGivesIsBoundAlsoBehindACut) {
  HostPoolOptions options;
  options.pool_bytes = kMiB;
  options.extent_bytes = options.small_extent_bytes = 256 * kKiB;
  options.ready_bytes = 512 * kKiB;
  options.lock = Demand::kOff;
  options.numa_node = 0;
  const absl::StatusOr<std::unique_ptr<HostPool>> pool = HostPool::Create(options, {});
  ASSERT_TRUE(pool.ok()) << MessageOf(pool.status());
  const absl::StatusOr<std::unique_ptr<Extent>> extent =
      (*pool)->Take(kPages * kPageBytes, ExtentUse::kKept);
  ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
  Policy policy;
  ASSERT_TRUE(PolicyOf(**extent, &policy));
  EXPECT_EQ(policy.mode, MPOL_BIND);
}

TEST_F(NumaNodeTest, ANodeThatIsNotThereIsRefused) {
  EXPECT_TRUE(CheckNumaNode(0).ok());
  EXPECT_EQ(CheckNumaNode(::numa_max_node() + 1).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CheckNumaNode(-1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(NumaNodeTest, ThreadsOfAThreadOfANodeRunThere) {
  std::thread([] {
    ASSERT_TRUE(RunOnNumaNode(0).ok());
    std::thread([] {
      EXPECT_EQ(::numa_node_of_cpu(::sched_getcpu()), 0);
      cpu_set_t set;
      ASSERT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(static_cast<size_t>(cpu), &set)) continue;
        EXPECT_EQ(::numa_node_of_cpu(cpu), 0) << "cpu=" << cpu;
      }
    }).join();
    cpu_set_t before, after;
    ASSERT_EQ(::sched_getaffinity(0, sizeof(before), &before), 0);
    EXPECT_EQ(RunOnNumaNode(::numa_max_node() + 1).code(), absl::StatusCode::kFailedPrecondition);
    ASSERT_EQ(::sched_getaffinity(0, sizeof(after), &after), 0);
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
  }).join();
}

}  // namespace
}  // namespace kvasir
